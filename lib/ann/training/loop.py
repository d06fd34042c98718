"""The training run: stages, epochs, what is kept of each and what is told about it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import keras

from ann.data.samples.prefetch import Prefetcher
from ann.errors import AnnError
from ann.training import log, memory, state
from ann.training.preparation import Feed
from ann.training.replicas import Devices
from ann.training.schedule import Stage, learning_rate_share, plan_stages
from ann.training.settings import TrainingSettings
from ann.weights import save_model
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.stages import set_trainable
from maskrcnn.network.training import TrainingNetwork

WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0  # gradients are scaled down to this global norm
MESSAGE_SECONDS = 60  # between two messages within an epoch
MAIN_SCORES = ("box_AP", "mask_AP", "mask_AP50")  # that are told
ONE_DEVICE = Devices()
ESTIMATE_STEPS = 5  # of the first epoch, after which the time of the run is estimated


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
    best_epoch: int  # of all epochs in the table
    interrupted: bool
    ended_early: str = ""  # why, if neither interrupted nor through with all epochs


@dataclass(frozen=True)
class Run:
    """What all epochs of a run share. `score`, `record`: see `run_epochs`; `started`: of `time.monotonic`."""

    model: TrainingNetwork
    config: MaskRCNNConfig
    feed: Feed
    settings: TrainingSettings
    reporter: Reporter
    devices: Devices
    score: Callable[[], dict[str, float]] | None
    record: Callable[[dict], None] | None
    started: float

    def time_used(self) -> float:
        """Share of the time budget that is used up, 0 without one. All processes must ask equally often."""
        minutes = self.settings.minutes
        return self.devices.agree((time.monotonic() - self.started) / (60 * minutes)) if minutes else 0.0


def run_epochs(
    model: TrainingNetwork,
    config: MaskRCNNConfig,
    feed: Feed,
    settings: TrainingSettings,
    reporter: Reporter,
    *,
    first_epoch: int = 1,
    score: Callable[[], dict[str, float]] | None = None,
    record: Callable[[dict], None] | None = None,
    devices: Devices = ONE_DEVICE,
) -> TrainingResult:
    """Train a network; a model file, a table row and the learning curve are written after each epoch.

    Batches go to Keras one by one and not through `fit`: on TensorFlow that would read them with tf.data,
    whose generators set malloc so that each step spends 40 % of its time on getting and returning memory.

    Args:
        feed: batches by number, counted from 0 over the whole run for training; called from several threads.
        first_epoch: above 1, the run goes on from the state saved after the epoch before.
        score: scores of the network as it is, called after each epoch; they become columns of its row. The
            best model is the one with the highest `mask_AP`, without scores the one with the lowest loss.
        record: called with the row of each epoch when it is in the table.
        devices: those that `model` is trained on; of several processes only the first writes and scores.

    Raises:
        AnnError: the loss is no longer a number, or the memory does not suffice.
    """
    run = Run(model, config, feed, settings, reporter, devices, score, record, time.monotonic())
    last_epoch = first_epoch - 1
    ended_early = ""
    try:
        for epoch in train_epochs(run, first_epoch):
            last_epoch = epoch
            ended_early = reason_to_stop(run, epoch)
            if ended_early:
                break
    except KeyboardInterrupt:
        return TrainingResult(last_epoch, log.best_epoch(settings.table_path), interrupted=True)
    except Exception as error:
        if memory.is_exhausted(error):
            raise AnnError(
                f"The memory does not suffice ({memory.describe_use()}). Lower images_per_gpu, "
                "images_max_dim or rois_per_image, set mini_mask_size=56,56, or choose a smaller backbone"
            ) from error
        raise
    return TrainingResult(last_epoch, log.best_epoch(settings.table_path), False, ended_early)


def train_epochs(run: Run, first_epoch: int) -> Iterator[int]:
    """Train stage by stage; the number of each epoch comes out when all of it is written."""
    settings = run.settings
    first_step = (first_epoch - 1) * settings.steps_per_epoch
    with Prefetcher(run.feed.training_batch, start=first_step, workers=settings.workers) as batches:
        for stage in plan_stages(settings.epochs, staged=settings.staged):
            if stage.last < first_epoch:
                continue
            start = max(stage.first, first_epoch)
            begin_stage(run, stage, resumed=start > stage.first)
            for epoch in range(start, stage.last + 1):
                train_epoch(run, stage, epoch, batches, compiling=epoch == start)
                yield epoch


def begin_stage(run: Run, stage: Stage, *, resumed: bool) -> None:
    """Set which layers are trained, and compile the step with a new or the saved optimiser."""
    set_trainable(run.model.network, stage.layers, run.settings.train_batch_norm)
    optimizer = make_optimizer(run.settings)
    # XLA trains slower than TensorFlow's own graphs on a CPU; JAX is always compiled, torch never
    run.model.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
    optimizer.build(run.model.trainable_variables)
    if resumed:
        state.restore_optimizer(run.settings.state_path, optimizer)


def train_epoch(run: Run, stage: Stage, epoch: int, batches: Prefetcher, *, compiling: bool) -> None:
    """Train for an epoch, validate, and keep what it gave. compiling: its first step takes far longer.

    When the time budget is used up, the epoch ends with the step that is being made.
    """
    settings, reporter = run.settings, run.reporter
    steps, total = settings.steps_per_epoch, settings.steps_per_epoch * settings.epochs
    sums = defaultdict(float)
    started = told = time.monotonic()
    timed_from = (0, started)  # number of steps that were done, and when
    time_used = run.time_used()
    for step in range(1, steps + 1):
        run.model.optimizer.learning_rate = learning_rate(settings, stage, epoch, step, time_used)
        losses = run.model.train_on_batch(next(batches), return_dict=True)
        for name, value in losses.items():
            sums[name] += float(value)
        if not math.isfinite(sums["loss"]):
            raise AnnError(
                f"The loss is no longer a number in epoch {epoch}. Start from a model, or lower the learning "
                f"rate. The last good model is that of epoch {epoch - 1}"
            )
        done = (epoch - 1) * steps + step
        reporter.percent(done, total)
        now = time.monotonic()
        if compiling and step == 1:
            timed_from = (1, now)
        elif now - told > MESSAGE_SECONDS or (compiling and step == ESTIMATE_STEPS):
            told = now
            reporter.message(
                f"Epoch {epoch}/{settings.epochs}, step {step}/{steps}: loss {sums['loss'] / step:.3f}, "
                f"{_pace(timed_from, step, now, settings, total - done)}, {memory.describe_use()}"
            )
        time_used = run.time_used()
        if time_used >= 1:
            break
    pace = _pace(timed_from, step, time.monotonic(), settings, total - epoch * steps)
    losses = {name: value / step for name, value in sums.items()}
    losses |= {f"val_{name}": value for name, value in validate(run).items()}
    scores = run.score() if run.score and run.devices.first else {}
    row = {
        "epoch": epoch,
        "stage": stage.layers,
        "steps": step,
        "learning_rate": float(keras.ops.convert_to_numpy(run.model.optimizer.learning_rate)),
        "seconds": time.monotonic() - started,
    }
    if run.devices.first:
        keep_epoch(run, epoch, row | losses | scores)
    main = losses | {name: scores[name] for name in MAIN_SCORES if name in scores}
    details = ", ".join(f"{name} {value:.3f}" for name, value in main.items())
    reporter.message(
        f"Epoch {epoch}/{settings.epochs} ({stage.layers}): {details}; {pace}. "
        f"Saved {settings.model_path(epoch)}"
    )


def learning_rate(settings: TrainingSettings, stage: Stage, epoch: int, step: int, time_used: float) -> float:
    """The rate of a step, counted from 1 in its epoch. time_used: share of the time budget."""
    done = (epoch - stage.first) * settings.steps_per_epoch + step - 1
    share = learning_rate_share(done, stage.epochs * settings.steps_per_epoch, time_used)
    return settings.peak_learning_rate * stage.learning_rate_factor * share


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
    """Write model, state, table row and curve of an epoch, and the model once more if it is the best."""
    settings, layout = run.settings, legacy_layout(run.model.network)
    # what is no number, like the score of a class without objects, stays empty
    row = {name: value for name, value in row.items() if isinstance(value, str) or math.isfinite(value)}
    save_model(settings.model_path(epoch), layout, run.config, extra=row)
    kept = {"epoch": epoch, "staged": settings.staged}  # what a resumed run must know beside its options
    state.save_state(settings.state_path, layout, run.config, run.model.optimizer, kept)
    log.write_row(settings.table_path, row)
    if log.best_epoch(settings.table_path) == epoch:
        save_model(settings.best_path, layout, run.config, extra=row)
    log.draw_curve(settings.table_path, settings.curve_path)
    if run.record:
        run.record(row)


def reason_to_stop(run: Run, epoch: int) -> str:
    """Why no more epochs should be trained after this one; empty if they should."""
    settings = run.settings
    if run.time_used() >= 1:
        return f"the {settings.minutes:g} minutes are over"
    if not settings.patience:
        return ""
    # only the first process has the table
    best = int(run.devices.agree(log.best_epoch(settings.table_path) if run.devices.first else 0))
    if best + settings.patience <= epoch < settings.epochs:
        return f"no epoch since {best} has been better"
    return ""


def make_optimizer(settings: TrainingSettings) -> keras.optimizers.Optimizer:
    """AdamW; the loop sets its rate before each step.

    It trains from scratch where plain gradient descent at any one rate diverges or creeps, because the
    frozen normalisation leaves layers at different scales.
    """
    return keras.optimizers.AdamW(
        settings.learning_rate, weight_decay=WEIGHT_DECAY, global_clipnorm=GRADIENT_NORM
    )


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
