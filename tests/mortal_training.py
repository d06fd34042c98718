"""Settings of a training whose second worker dies once, at the start of epoch 3.

Whoever unpickles them imports this file, and with it `train_on_devices`: that is how both get into the
workers.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import train_on_devices  # noqa: F401  gradient descent in place of AdamW
from maskrcnn.training import loop
from maskrcnn.training.settings import TrainingSettings

train_epoch = loop.train_epoch


@dataclass(frozen=True, kw_only=True)
class MortalSettings(TrainingSettings):
    """As any settings."""


def mortal_train_epoch(run, stage, epoch, *arguments, **options):
    """`train_epoch`, which the second worker does not survive the first time."""
    import ray.train

    marker = run.settings.logs / "died"
    if epoch == 3 and ray.train.get_context().get_world_rank() == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(run, stage, epoch, *arguments, **options)


loop.train_epoch = mortal_train_epoch
