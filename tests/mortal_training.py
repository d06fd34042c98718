"""Settings of a training whose second worker dies once, after the first step of epoch 2.

By then the first worker, which takes part in each step, has saved epoch 1. Whoever unpickles these settings
imports this file: that is how it gets into the workers.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from ann.training import loop
from ann.training.job import Silence
from ann.training.settings import TrainingSettings

train_epoch = loop.train_epoch


@dataclass(frozen=True, kw_only=True)
class MortalSettings(TrainingSettings):
    """As any settings."""


@dataclass(frozen=True)
class Death(Silence):
    """A reporter that kills its process, but only the first time."""

    marker: Path

    def percent(self, done, total):
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def mortal_train_epoch(run, stage, epoch, *arguments, **options):
    """`train_epoch`, which the second worker does not survive the first time."""
    import ray.train

    if epoch == 2 and ray.train.get_context().get_world_rank() == 1:
        run = replace(run, reporter=Death(run.settings.logs / "died"))
    return train_epoch(run, stage, epoch, *arguments, **options)


loop.train_epoch = mortal_train_epoch
