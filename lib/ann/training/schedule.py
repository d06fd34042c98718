"""Which layers are trained in which epochs, and at what learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP_STEPS = 500  # or a tenth of the stage, if that is less
FINAL_RATE = 0.02  # share of the learning rate that is left at the end of a stage


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs `first` to `last` (counted from 1, both included) train `layers`."""

    layers: str  # "heads", "4+" or "all", as `network.set_trainable` knows them
    first: int
    last: int
    learning_rate_factor: float

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return self.last - self.first + 1


def plan_stages(epochs: int, *, staged: bool) -> tuple[Stage, ...]:
    """Share the epochs out among the stages.

    Initial weights were learnt elsewhere: the heads get used to the new task before the backbone is
    touched. They train for a seventh of the epochs, layers from ResNet stage 4 up until three sevenths,
    and all layers in the rest at a tenth of the rate. With fewer than three epochs there is one stage.
    """
    if not staged or epochs < 3:
        return (Stage(layers="all", first=1, last=epochs, learning_rate_factor=0.1 if staged else 1.0),)
    heads = max(1, epochs // 7)
    upper = max(heads + 1, epochs * 3 // 7)
    return (
        Stage(layers="heads", first=1, last=heads, learning_rate_factor=1.0),
        Stage(layers="4+", first=heads + 1, last=upper, learning_rate_factor=1.0),
        Stage(layers="all", first=upper + 1, last=epochs, learning_rate_factor=0.1),
    )


def learning_rate_share(done: int, steps: int, time_used: float = 0.0) -> float:
    """Share of the peak learning rate for the step after `done` of a stage's `steps`.

    A linear rise, times half a cosine down to `FINAL_RATE`. time_used: share of the time budget that is used
    up; the cosine follows it where it is ahead of the steps, so that a run that will be cut short ends at
    low rates too.
    """
    rise = min((done + 1) / max(1, min(WARM_UP_STEPS, steps // 10)), 1.0)
    progress = min(max(done / steps, time_used), 1.0)
    return rise * (FINAL_RATE + (1 - FINAL_RATE) * (0.5 + 0.5 * math.cos(math.pi * progress)))
