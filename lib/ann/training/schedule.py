"""Which layers are trained when, at what learning rate, and how much of a time budget is used up."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

WARM_UP_STEPS = 500  # or a tenth of the stage, if that is less
WARM_UP_SHARE = 0.1
FINAL_RATE = 0.02  # share of the learning rate that is left at the end of a stage
TIMED_EPOCHS = 10  # at least, in a run whose time is limited
LAYERS = ("heads", "4+", "all")  # as `Task.set_trainable` knows them, in the order of the stages


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs `first` to `last` (counted from 1, both included) train `layers`.

    begin, end: of the stage, as shares of the run's time where that is limited. It is over when its epochs or
    its time are.
    """

    layers: str
    first: int
    last: int
    learning_rate_factor: float
    begin: float = 0.0
    end: float = 1.0

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return self.last - self.first + 1

    @property
    def is_last(self) -> bool:
        """Whether no other stage follows."""
        return self.end >= 1


def plan_stages(epochs: int, *, staged: bool) -> tuple[Stage, ...]:
    """Share the run out among the stages.

    Initial weights were learnt elsewhere: the heads get used to the new task before the backbone is
    touched. They train for a seventh of the run, layers from ResNet stage 4 up until three sevenths,
    and all layers in the rest at a tenth of the rate. With fewer than three epochs there is one stage.
    """
    if not staged or epochs < 3:
        return (Stage(layers="all", first=1, last=epochs, learning_rate_factor=0.1 if staged else 1.0),)
    heads = max(1, epochs // 7)
    upper = max(heads + 1, epochs * 3 // 7)
    return (
        Stage(layers="heads", first=1, last=heads, learning_rate_factor=1.0, end=1 / 7),
        Stage(layers="4+", first=heads + 1, last=upper, learning_rate_factor=1.0, begin=1 / 7, end=3 / 7),
        Stage(layers="all", first=upper + 1, last=epochs, learning_rate_factor=0.1, begin=3 / 7),
    )


def choose_stage(stages: Sequence[Stage], epoch: int, time_used: float, before: Stage | None) -> Stage:
    """The stage of an epoch, with the epoch that it really began with.

    It is the last one that epochs or time have come to. before: the stage of the epoch before, None for the
    first one; nothing goes back to layers that were trained earlier.
    """
    reached = max(
        number for number, stage in enumerate(stages) if stage.first <= epoch or 0 < stage.begin <= time_used
    )
    if before:
        order = [LAYERS.index(stage.layers) for stage in stages]
        reached = max(reached, bisect_left(order, LAYERS.index(before.layers)))
    stage = stages[reached]
    return replace(stage, first=before.first if before and before.layers == stage.layers else epoch)


def epoch_share(epochs: int) -> float:
    """Share of a run's time that an epoch may take, whatever its steps: models are compared after each."""
    return 1 / min(epochs, TIMED_EPOCHS)


def learning_rate_share(done: int, steps: int, time_used: float = 0.0) -> float:
    """Share of the peak learning rate for the step after `done` of a stage's `steps`.

    A linear rise, times half a cosine down to `FINAL_RATE`. time_used: share of the stage's time that is used
    up; rise and cosine follow it where it is ahead of the steps, so that a stage that will be cut short ends
    at low rates too.
    """
    by_steps = (done + 1) / max(1, min(WARM_UP_STEPS, int(steps * WARM_UP_SHARE)))
    rise = min(max(by_steps, time_used / WARM_UP_SHARE), 1.0)
    progress = min(max(done / steps, time_used), 1.0)
    return rise * (FINAL_RATE + (1 - FINAL_RATE) * (0.5 + 0.5 * math.cos(math.pi * progress)))


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """The time that a run may take, 0 for no limit. begun: the share that was used before this process."""

    seconds: float
    begun: float = 0.0
    started: float = field(default_factory=lambda: time.monotonic())

    @classmethod
    def resume(cls, minutes: float, seconds_used: float, stage: Stage) -> TimeBudget:
        """What is left after an interruption; where nothing is, all minutes again, from this stage on."""
        seconds = 60 * minutes
        if 0 < seconds_used < seconds:
            return cls(seconds=seconds, begun=seconds_used / seconds)
        return cls(seconds=seconds / (1 - stage.begin), begun=stage.begin)

    def used(self) -> float:
        """Share that is used up, 1 and more when the time is over; 0 without a limit."""
        return self.begun + (time.monotonic() - self.started) / self.seconds if self.seconds else 0.0

    def seconds_used(self) -> float:
        """As `resume` wants them: 0 without a limit, or once all are used up."""
        used = self.used()
        return used * self.seconds if used < 1 else 0.0

    def seconds_left(self) -> float:
        """Until the time is over; infinite without a limit."""
        return (1 - self.used()) * self.seconds if self.seconds else math.inf
