"""The training run: stages, epochs, what is kept of each and what is told about it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
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

    Args:
        feed: batches by number, counted from 0 over the whole run for training; called from several threads.
        first_epoch: above 1, the run goes on from the state saved after the epoch before.

    Raises:
        MaskRCNNError: the loss is no longer a number.
    """
    model = TrainingNetwork(network)
    result = TrainingResult(last_epoch=first_epoch - 1, interrupted=False)
    for stage in plan_stages(settings.epochs, staged=settings.staged):
        if stage.last < first_epoch:
            continue
        start = max(stage.first, first_epoch)
        set_trainable(network, stage.layers, settings.train_batch_norm)
        optimizer = make_optimizer(settings, stage)
        model.compile(optimizer=optimizer, jit_compile=_compiles_with_xla())
        optimizer.build(model.trainable_variables)  # else `fit` would spend the first batch on it
        if start > stage.first:
            state.restore_optimizer(settings.state_path, optimizer)
        record = EpochRecord(model, config, settings, stage, feed, reporter)
        first_step = (start - 1) * settings.steps_per_epoch
        try:
            with Prefetcher(feed.training_batch, start=first_step, workers=settings.workers) as batches:
                model.fit(
                    as_samples(batches),
                    initial_epoch=start - 1,
                    epochs=stage.last,
                    steps_per_epoch=settings.steps_per_epoch,
                    callbacks=[record],
                    shuffle=False,
                    verbose=0,
                )
        except KeyboardInterrupt:
            return TrainingResult(last_epoch=max(record.last_epoch, result.last_epoch), interrupted=True)
        result = TrainingResult(last_epoch=record.last_epoch, interrupted=False)
    return result


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
    TensorFlow's graph of a training step has three times the nodes.
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


def _compiles_with_xla():
    """XLA trains slower than TensorFlow's own graphs on a CPU; JAX is always compiled, torch never."""
    return keras.backend.backend() == "jax"


def as_samples(batches: Iterable[dict]) -> Iterator[tuple[dict]]:
    """Batches as Keras takes them from a generator: without labels beside."""
    for batch in batches:
        yield (batch,)


class EpochRecord(keras.callbacks.Callback):
    """Tells about the progress, and keeps model, state, table row and curve of each epoch."""

    def __init__(self, model, config, settings, stage, feed, reporter):
        super().__init__()
        self.network = model.network
        self.config = config
        self.settings = settings
        self.stage = stage
        self.feed = feed
        self.reporter = reporter
        self.last_epoch = 0
        self.epoch_number = stage.first

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_number = epoch + 1
        self.epoch_started = self.told = time.monotonic()
        self.paced_from = (0, self.epoch_started)  # steps done and when

    def on_train_batch_end(self, batch, logs=None):
        steps, total = self.settings.steps_per_epoch, self.settings.epochs * self.settings.steps_per_epoch
        done = (self.epoch_number - 1) * steps + batch + 1
        self.reporter.percent(done, total)
        now = time.monotonic()
        if batch == 0 and self.epoch_number == self.stage.first:
            self.paced_from = (1, now)  # the first step compiles, which says nothing about the others
        elif now - self.told > MESSAGE_SECONDS:
            self.told = now
            per_step = self._seconds_per_step(batch + 1, now)
            self.reporter.message(
                f"Epoch {self.epoch_number}/{self.settings.epochs}, step {batch + 1}/{steps}: "
                f"loss {float(logs['loss']):.3f}, {self._pace(per_step)}, "
                f"{_duration(per_step * (total - done))} left"
            )
            self._check(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs["loss"])
        now, steps = time.monotonic(), self.settings.steps_per_epoch
        seconds, per_step = now - self.epoch_started, self._seconds_per_step(steps, now)
        number, settings = epoch + 1, self.settings
        losses = {name: float(value) for name, value in logs.items()} | self._validation_losses()
        layout = legacy_layout(self.network)
        save_model(
            settings.model_path(number),
            layout,
            self.config,
            extra={"epoch": number, "stage": self.stage.layers, "losses": losses},
        )
        state.save_state(settings.state_path, layout, self.config, number, self.model.optimizer)
        row = {
            "epoch": number,
            "stage": self.stage.layers,
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": seconds,
        }
        log.write_row(settings.table_path, {**row, **losses})
        log.draw_curve(settings.table_path, settings.curve_path)
        self.last_epoch = number
        details = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.reporter.message(
            f"Epoch {number}/{settings.epochs} ({self.stage.layers}): {details}; "
            f"{self._pace(per_step)}, {_duration(per_step * steps * (settings.epochs - number))} left. "
            f"Saved {settings.model_path(number)}"
        )

    def _validation_losses(self):
        steps = self.feed.validation_steps
        if not steps:
            return {}
        with Prefetcher(self.feed.validation_batch, stop=steps, workers=self.settings.workers) as batches:
            losses = self.model.evaluate(as_samples(batches), steps=steps, verbose=0, return_dict=True)
        return {f"val_{name}": float(value) for name, value in losses.items()}

    def _seconds_per_step(self, done, now):
        first, started = self.paced_from
        return (now - started) / (done - first) if done > first else now - self.epoch_started

    def _pace(self, seconds_per_step):
        return f"{seconds_per_step:.2f} s/step, {self.settings.batch_size / seconds_per_step:.1f} images/s"

    def _check(self, loss):
        if not math.isfinite(float(loss)):
            raise MaskRCNNError(
                f"The loss is no longer a number in epoch {self.epoch_number}. Start from a model, or lower "
                f"learning_rate; the last good one is that of epoch {self.epoch_number - 1}"
            )


def _duration(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
