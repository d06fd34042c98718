"""The training run: stages, epochs, what is kept of each and what is told about it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import keras

from maskrcnn.config import ModelConfig
from maskrcnn.data.prefetch import Prefetcher
from maskrcnn.errors import MaskRCNNError
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.stages import set_trainable
from maskrcnn.network.training import TrainingNetwork
from maskrcnn.training import log, state
from maskrcnn.training.preparation import Feed
from maskrcnn.training.schedule import Stage, plan_stages
from maskrcnn.training.settings import TrainingSettings
from maskrcnn.weights import save_model

WARM_UP_STEPS = 500  # or a tenth of the stage, if that is less
FINAL_RATE = 0.02  # share of the learning rate that is left at the end of a stage
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0  # gradients are scaled down to this global norm
MESSAGE_SECONDS = 60  # between two messages within an epoch


class Reporter(Protocol):
    """Who is told about the progress."""

    def message(self, text: str) -> None:
        """A line of text."""

    def percent(self, done: int, total: int) -> None:
        """Optimiser steps of the run done so far."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind."""

    last_epoch: int  # 0 if no epoch was completed
    interrupted: bool


@dataclass(frozen=True)
class Run:
    """What all epochs of a run share."""

    model: TrainingNetwork
    config: ModelConfig
    feed: Feed
    settings: TrainingSettings
    reporter: Reporter


def run_epochs(
    network: keras.Model,
    config: ModelConfig,
    feed: Feed,
    settings: TrainingSettings,
    reporter: Reporter,
    *,
    first_epoch: int = 1,
) -> TrainingResult:
    """Train a network; a model file, a table row and the learning curve are written after each epoch.

    Batches go to Keras one by one and not through `fit`: on TensorFlow that would read them with tf.data,
    whose generators set malloc so that each step spends 40 % of its time on getting and returning memory.

    Args:
        feed: batches by number, counted from 0 over the whole run for training; called from several threads.
        first_epoch: above 1, the run goes on from the state saved after the epoch before.

    Raises:
        MaskRCNNError: the loss is no longer a number.
    """
    run = Run(TrainingNetwork(network), config, feed, settings, reporter)
    last_epoch = first_epoch - 1
    first_step = last_epoch * settings.steps_per_epoch
    try:
        with Prefetcher(feed.training_batch, start=first_step, workers=settings.workers) as batches:
            for stage in plan_stages(settings.epochs, staged=settings.staged):
                if stage.last < first_epoch:
                    continue
                start = max(stage.first, first_epoch)
                begin_stage(run, stage, resumed=start > stage.first)
                for epoch in range(start, stage.last + 1):
                    train_epoch(run, stage, epoch, batches, compiling=epoch == start)
                    last_epoch = epoch
    except KeyboardInterrupt:
        return TrainingResult(last_epoch, interrupted=True)
    return TrainingResult(last_epoch, interrupted=False)


def begin_stage(run: Run, stage: Stage, *, resumed: bool) -> None:
    """Set which layers are trained, and compile the step with a new or the saved optimiser."""
    set_trainable(run.model.network, stage.layers, run.settings.train_batch_norm)
    optimizer = make_optimizer(run.settings, stage)
    # XLA trains slower than TensorFlow's own graphs on a CPU; JAX is always compiled, torch never
    run.model.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
    optimizer.build(run.model.trainable_variables)
    if resumed:
        state.restore_optimizer(run.settings.state_path, optimizer)


def train_epoch(run: Run, stage: Stage, epoch: int, batches: Prefetcher, *, compiling: bool) -> None:
    """Train for an epoch, validate, and keep what it gave. compiling: its first step takes far longer."""
    settings, reporter = run.settings, run.reporter
    steps, total = settings.steps_per_epoch, settings.steps_per_epoch * settings.epochs
    sums = defaultdict(float)
    started = told = time.monotonic()
    timed_from = (0, started)  # number of steps that were done, and when
    for step in range(1, steps + 1):
        losses = run.model.train_on_batch(next(batches), return_dict=True)
        for name, value in losses.items():
            sums[name] += float(value)
        if not math.isfinite(sums["loss"]):
            raise MaskRCNNError(
                f"The loss is no longer a number in epoch {epoch}. Start from a model, or lower the learning "
                f"rate. The last good model is that of epoch {epoch - 1}"
            )
        done = (epoch - 1) * steps + step
        reporter.percent(done, total)
        now = time.monotonic()
        if compiling and step == 1:
            timed_from = (1, now)
        elif now - told > MESSAGE_SECONDS:
            told = now
            reporter.message(
                f"Epoch {epoch}/{settings.epochs}, step {step}/{steps}: loss {sums['loss'] / step:.3f}, "
                f"{_pace(timed_from, step, now, settings, total - done)}"
            )
    pace = _pace(timed_from, steps, time.monotonic(), settings, total - epoch * steps)
    losses = {name: value / steps for name, value in sums.items()}
    losses |= {f"val_{name}": value for name, value in validate(run).items()}
    row = {
        "epoch": epoch,
        "stage": stage.layers,
        "learning_rate": float(keras.ops.convert_to_numpy(run.model.optimizer.learning_rate)),
        "seconds": time.monotonic() - started,
    }
    keep_epoch(run, epoch, row | losses)
    details = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    reporter.message(
        f"Epoch {epoch}/{settings.epochs} ({stage.layers}): {details}; {pace}. "
        f"Saved {settings.model_path(epoch)}"
    )


def validate(run: Run) -> dict[str, float]:
    """Mean losses over the validation batches, by name; none without such batches."""
    steps = run.feed.validation_steps
    sums = defaultdict(float)
    with Prefetcher(run.feed.validation_batch, stop=steps, workers=run.settings.workers) as batches:
        for batch in batches:
            for name, value in run.model.test_on_batch(batch, return_dict=True).items():
                sums[name] += float(value)
    return {name: value / steps for name, value in sums.items()}


def keep_epoch(run: Run, epoch: int, row: dict) -> None:
    """Write model, state, table row and curve of an epoch."""
    settings, layout = run.settings, legacy_layout(run.model.network)
    save_model(settings.model_path(epoch), layout, run.config, extra=row)
    kept = {"epoch": epoch, "staged": settings.staged}  # what a resumed run must know beside its options
    state.save_state(settings.state_path, layout, run.config, run.model.optimizer, kept)
    log.write_row(settings.table_path, row)
    log.draw_curve(settings.table_path, settings.curve_path)


def make_optimizer(settings: TrainingSettings, stage: Stage) -> keras.optimizers.Optimizer:
    """AdamW with a short warm-up, then a cosine decay over the stage.

    It trains from scratch where plain gradient descent at any one rate diverges or creeps, because the
    frozen normalisation leaves layers at different scales.
    """
    steps = stage.epochs * settings.steps_per_epoch
    rate = WarmUpCosine(settings.learning_rate * stage.learning_rate_factor, steps)
    return keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, global_clipnorm=GRADIENT_NORM)


class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to `peak`, times half a cosine down to `FINAL_RATE` of it over `steps`.

    Keras' own `CosineDecay` does the same with branches, and a schedule is traced once per variable: with it,
    tracing a training step takes TensorFlow half as long again.
    """

    def __init__(self, peak: float, steps: int):
        self.peak, self.steps = peak, steps
        self.warm_up = max(1, min(WARM_UP_STEPS, steps // 10))

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rise = keras.ops.minimum((step + 1) / self.warm_up, 1)
        cosine = keras.ops.cos(step * (math.pi / self.steps))
        return self.peak * rise * (FINAL_RATE + (1 - FINAL_RATE) * (0.5 + 0.5 * cosine))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps}


def _pace(timed_from, done, now, settings, left):
    """Seconds per step, images per second and time left, as text."""
    first, started = timed_from
    if done == first:
        return "time left not known yet"
    per_step = (now - started) / (done - first)
    images, time_left = settings.batch_size / per_step, _duration(per_step * left)
    return f"{per_step:.2f} s/step, {images:.1f} images/s, {time_left} left"


def _duration(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
