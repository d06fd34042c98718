"""The training run: stages, epochs, what is kept of each and what is told about it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import keras

from ann.collecting import collecting_paused
from ann.config import ModelConfig
from ann.data.samples.prefetch import Prefetcher
from ann.devices.available import gpu_in_use
from ann.devices.upload import uploader
from ann.errors import AnnError
from ann.evaluation.report import duration
from ann.task import Feed, Task
from ann.training import log, memory, state
from ann.training.job import Reporter, TrainingResult
from ann.training.model import TrainingModel
from ann.training.replicas import Devices
from ann.training.schedule import (
    Stage,
    TimeBudget,
    choose_stage,
    epoch_share,
    learning_rate_share,
    plan_stages,
)
from ann.training.settings import TrainingSettings
from ann.weights import save_model

WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0  # gradients are scaled down to this global norm
MESSAGE_SECONDS = 60  # between two messages within an epoch
ONE_DEVICE = Devices()
UNREAD_STEPS = 10  # after which the losses are read
ESTIMATE_STEPS = 5  # of the first epoch, after which the time of the run is estimated


@dataclass(frozen=True)
class Run:
    """What all epochs of a run share. `score`, `record`: see `run_epochs`."""

    task: Task
    model: TrainingModel
    config: ModelConfig
    feed: Feed
    settings: TrainingSettings
    reporter: Reporter
    devices: Devices
    score: Callable[[], dict[str, float]] | None
    record: Callable[[dict], None] | None
    budget: TimeBudget

    def time_used(self) -> float:
        """Share of the time budget that is used up, 0 without one. All processes must ask equally often."""
        return self.devices.agree(self.budget.used()) if self.budget.seconds else 0.0


def run_epochs(
    task: Task,
    model: TrainingModel,
    config: ModelConfig,
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
        score: scores of the network as it is, called after each epoch, in all processes; they become columns
            of its row. The best model is the one that ranks highest by `task.ranking`, without scores by the
            lowest loss.
        record: called with the row of each epoch when it is in the table.
        devices: those that `model` is trained on; of several processes only the first writes.

    Raises:
        AnnError: the loss is no longer a number, or the memory does not suffice.
    """
    stages = plan_stages(settings.epochs, staged=settings.staged)
    before, taken, budget = None, 0, TimeBudget(seconds=60 * settings.minutes)
    if first_epoch > 1:
        progress = state.read_progress(settings.state_path, task.kind)
        before = stage_before(stages, progress)
        taken = progress.batches if progress.batches >= 0 else progress.epoch * settings.steps_per_epoch
        budget = TimeBudget.resume(settings.minutes, progress.seconds, before)
    run = Run(task, model, config, feed, settings, reporter, devices, score, record, budget)
    last_epoch = first_epoch - 1
    ended_early = ""
    try:
        for epoch, stage in train_epochs(run, stages, before, first_epoch, taken):
            last_epoch = epoch
            ended_early = reason_to_stop(run, stage, epoch)
            if ended_early:
                break
    except KeyboardInterrupt:
        return TrainingResult(last_epoch, log.best_epoch(settings.table_path, task.ranking), interrupted=True)
    except Exception as error:
        if memory.is_exhausted(error):
            raise AnnError(
                f"The memory does not suffice ({memory.describe_use()}). Lower images_per_gpu, "
                f"{task.memory_hint}"
            ) from error
        raise
    return TrainingResult(last_epoch, log.best_epoch(settings.table_path, task.ranking), False, ended_early)


def stage_before(stages: Sequence[Stage], progress: state.Progress) -> Stage:
    """The stage of the last epoch of a run that goes on, now perhaps with another number of epochs."""
    planned = next(stage for stage in stages if progress.epoch <= stage.last or stage.is_last)
    if not progress.layers:
        return planned
    begin = next((stage.begin for stage in stages if stage.layers == progress.layers), planned.begin)
    return replace(planned, layers=progress.layers, first=progress.stage_first, begin=begin)


def train_epochs(
    run: Run, stages: Sequence[Stage], before: Stage | None, first_epoch: int, taken: int
) -> Iterator[tuple[int, Stage]]:
    """Train stage by stage; the number of each epoch and its stage come out when all of it is written.

    before: the stage of the epoch before the first one, None where there was none; taken: batches until then.
    """
    settings = run.settings
    with Prefetcher(uploaded(run.feed.training_batch), start=taken, workers=settings.workers) as batches:
        for epoch in range(first_epoch, settings.epochs + 1):
            stage = choose_stage(stages, epoch, run.time_used(), before)
            goes_on = before is not None and stage.layers == before.layers
            compiling = epoch == first_epoch or not goes_on
            if compiling:
                begin_stage(run, stage, resumed=goes_on)
            taken = train_epoch(run, stage, epoch, batches, taken=taken, compiling=compiling)
            before = stage
            yield epoch, stage


def begin_stage(run: Run, stage: Stage, *, resumed: bool) -> None:
    """Set which layers are trained, and compile the step with a new or the saved optimiser."""
    run.task.set_trainable(run.model.network, stage.layers, run.settings.train_batch_norm)
    optimizer = make_optimizer(run.settings)
    # XLA trains slower than TensorFlow's own graphs on a CPU; JAX is always compiled, torch never
    compiled = {"jax": True, "tensorflow": gpu_in_use()}.get(keras.backend.backend(), False)
    run.model.compile(optimizer=optimizer, jit_compile=compiled)
    optimizer.build(run.model.trainable_variables)
    if resumed:
        state.restore_optimizer(run.settings.state_path, run.task.kind, optimizer)


def train_epoch(
    run: Run, stage: Stage, epoch: int, batches: Prefetcher, *, taken: int, compiling: bool
) -> int:
    """Train for an epoch, validate, and keep what it gave; returns the number of batches taken so far.

    When the stage's time or the epoch's own is used up, the epoch ends with the step that is being made.
    taken: batches before it; compiling: its first step takes far longer.
    """
    settings, reporter = run.settings, run.reporter
    steps, total = settings.steps_per_epoch, settings.steps_per_epoch * settings.epochs
    sums = LossSums(run.model.with_total)
    started = told = time.monotonic()
    timed_from = (0, started)  # number of steps that were done, and when
    time_used = run.time_used()
    ends = min(stage.end, time_used + epoch_share(settings.epochs))
    for step in range(1, steps + 1):
        run.model.set_learning_rate(learning_rate(settings, stage, epoch, step, time_used))
        with collecting_paused() if compiling and step == 1 else contextlib.nullcontext():
            losses = run.model.take_step(next(batches))
        sums.add(losses, wait=step in (1, ESTIMATE_STEPS, steps))
        check_finite(sums.total, epoch)
        done = (epoch - 1) * steps + step
        reporter.percent(max(done, int(min(time_used, 1.0) * total)), total)
        now = time.monotonic()
        if compiling and step == 1:
            timed_from = (1, now)
        elif now - told > MESSAGE_SECONDS or (compiling and step == ESTIMATE_STEPS):
            told = now
            text = (
                f"Epoch {epoch}/{settings.epochs}, step {step}/{steps}: loss {sums.means()['loss']:.3f}, "
                f"{_pace(timed_from, step, now, run, total - done)}, {memory.describe_use()}"
            )
            if step == ESTIMATE_STEPS and settings.usual_steps and not settings.minutes:
                usual = duration((now - timed_from[1]) / (step - timed_from[0]) * settings.usual_steps)
                text += (
                    f". {settings.usual_steps:,} steps, usual for a first model of these images, take {usual}"
                )
            reporter.message(text)
        time_used = run.time_used()
        if time_used >= ends:
            break
    losses = sums.means()  # waits for the last step
    check_finite(sums.total, epoch)
    run.model.share()
    pace = _pace(timed_from, step, time.monotonic(), run, total - epoch * steps)
    losses |= {f"val_{name}": value for name, value in validate(run).items()}
    scores = run.score() if run.score else {}
    row = {
        "epoch": epoch,
        "stage": stage.layers,
        "steps": step,
        "learning_rate": float(keras.ops.convert_to_numpy(run.model.optimizer.learning_rate)),
        "seconds": time.monotonic() - started,
    }
    if run.devices.first:
        progress = state.Progress(
            epoch=epoch,
            staged=settings.staged,
            layers=stage.layers,
            stage_first=stage.first,
            batches=taken + step,
            seconds=run.budget.seconds_used(),
        )
        keep_epoch(run, progress, row | losses | scores)
    main = losses | {name: scores[name] for name in run.task.main_scores if name in scores}
    details = ", ".join(f"{name} {value:.3f}" for name, value in main.items())
    reporter.message(
        f"Epoch {epoch}/{settings.epochs} ({stage.layers}): {details}; {pace}. "
        f"Saved {settings.model_path(epoch)}"
    )
    return taken + step


def check_finite(loss: float, epoch: int) -> None:
    """Refuse to go on after an infinite loss, or one that is no number."""
    if not math.isfinite(loss):
        raise AnnError(
            f"The loss is no longer a number in epoch {epoch}. Start from a model, or lower the learning "
            f"rate. The last good model is that of epoch {epoch - 1}"
        )


def learning_rate(settings: TrainingSettings, stage: Stage, epoch: int, step: int, time_used: float) -> float:
    """The rate of a step, counted from 1 in its epoch. time_used: share of the time budget."""
    done = (epoch - stage.first) * settings.steps_per_epoch + step - 1
    time_of_stage = max(0.0, (time_used - stage.begin) / (stage.end - stage.begin))
    share = learning_rate_share(done, stage.epochs * settings.steps_per_epoch, time_of_stage)
    return settings.peak_learning_rate * stage.learning_rate_factor * share


def validate(run: Run) -> dict[str, float]:
    """Mean losses over the validation batches, by name; none without such batches."""
    steps = run.feed.validation_steps
    sums = LossSums(run.model.with_total)
    with Prefetcher(uploaded(run.feed.validation_batch), stop=steps, workers=run.settings.workers) as batches:
        for batch in batches:
            sums.add(run.model.losses_of(batch))
    return sums.means()


def uploaded(make: Callable[[int], Mapping]) -> Callable[[int], Mapping]:
    """Batches by number as `make` gives them, on the device where that can be done ahead."""
    upload = uploader()
    return lambda number: upload(make(number))


class LossSums:
    """Losses of steps, added up. They are read every few steps only, for that waits for the device.

    read: losses of a step as the device has them -> as numbers, with "loss", their total.
    """

    def __init__(self, read: Callable[[Mapping], Mapping]):
        self._read_one = read
        self._sums = defaultdict(float)
        self._steps = 0
        self._unread = []

    def add(self, losses: Mapping, *, wait: bool = False) -> None:
        """Add those of a step, and read them all if it is to be waited for."""
        self._unread.append(losses)
        if wait or len(self._unread) == UNREAD_STEPS:
            self._read()

    @property
    def total(self) -> float:
        """Sum of all losses that are read."""
        return self._sums["loss"]

    def means(self) -> dict[str, float]:
        """The mean of each loss, "loss" first; none without steps."""
        self._read()
        return {name: value / self._steps for name, value in self._sums.items()}

    def _read(self):
        for losses in self._unread:
            for name, value in self._read_one(losses).items():
                self._sums[name] += value
        self._steps += len(self._unread)
        self._unread = []


def keep_epoch(run: Run, progress: state.Progress, row: dict) -> None:
    """Write model, state, table row and curve of an epoch, and the model once more if it is the best."""
    settings, layout, epoch = run.settings, run.task.layout(run.model.network), progress.epoch
    # what is no number, like the score of a class without objects, stays empty
    row = {name: value for name, value in row.items() if isinstance(value, str) or math.isfinite(value)}
    save_model(settings.model_path(epoch), layout, run.config, extra=row)
    state.save_state(settings.state_path, layout, run.config, run.model.optimizer, progress)
    log.write_row(settings.table_path, row)
    if log.best_epoch(settings.table_path, run.task.ranking) == epoch:
        save_model(settings.best_path, layout, run.config, extra=row)
    log.draw_curve(settings.table_path, settings.curve_path)
    if run.record:
        run.record(row)


def reason_to_stop(run: Run, stage: Stage, epoch: int) -> str:
    """Why no more epochs should be trained after this one; empty if they should.

    A stage that trains the heads alone soon gets no better, while those that follow do: only the last one is
    ended early.
    """
    settings = run.settings
    if run.time_used() >= 1:
        return f"the {settings.minutes:g} minutes are over"
    if not settings.patience or not stage.is_last:
        return ""
    # only the first process has the table
    best = int(
        run.devices.agree(log.best_epoch(settings.table_path, run.task.ranking) if run.devices.first else 0)
    )
    if max(best, stage.first - 1) + settings.patience <= epoch < settings.epochs:
        return f"no epoch since {best} has been better"
    return ""


def make_optimizer(settings: TrainingSettings) -> keras.optimizers.Optimizer:
    """AdamW; the loop sets its rate before each step.

    It trains from scratch where plain gradient descent at any one rate diverges or creeps, because the
    frozen normalisation leaves layers at different scales.
    """
    optimizer = keras.optimizers.AdamW
    if keras.backend.backend() == "torch":
        from ann.pytorch.steps import AdamW as optimizer
    return optimizer(settings.learning_rate, weight_decay=WEIGHT_DECAY, global_clipnorm=GRADIENT_NORM)


def _pace(timed_from, done, now, run, left):
    """Seconds per step, images per second and time left, as text."""
    first, started = timed_from
    if done == first:
        return "time left not known yet"
    per_step = (now - started) / (done - first)
    time_left = max(0.0, min(per_step * left, run.budget.seconds_left()))
    images = run.settings.batch_size / per_step
    return f"{per_step:.2f} s/step, {images:.1f} images/s, {duration(time_left)} left"
