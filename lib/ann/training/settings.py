"""What a training run is asked to do."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

# By how much n devices raise the learning rate. n devices average the gradient over n times as many images:
# it is less noisy, by the square root of n.
LEARNING_RATE_FACTORS = {"none": lambda n: 1.0, "sqrt": math.sqrt, "linear": float}


MOST_WORKERS = 16


def default_workers() -> int:
    """Threads that prepare images beside one that trains, as many as this process has cores for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(cores - 1, MOST_WORKERS))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a run that the network itself does not depend on (those are in its config)."""

    name: str  # models are saved as <prefix>_<name>_<epoch>.h5
    prefix: str = "mask_rcnn"
    logs: Path
    epochs: int = 200
    steps_per_epoch: int = 3000  # optimiser steps
    validation_steps: int = 100
    images_per_device: int = 1
    device_count: int = 1  # of all machines together
    learning_rate: float = 5e-4  # of one device
    learning_rate_scaling: str = "none"  # with the number of devices, see LEARNING_RATE_FACTORS
    patience: int = 0  # epochs without a better model after which the run ends, 0: it doesn't
    minutes: float = 0.0  # after which the run ends, 0: no limit
    precision: str = "float32"  # or "bfloat16": of the layers' calculations, weights are float32
    augment: bool = True
    balance: bool = False  # prefer images and objects of rare classes
    staged: bool = False  # heads first, then stage 4 and up, then all: for runs with initial weights
    train_batch_norm: bool = False
    usual_steps: int = 0  # of a first training on such images, see `advice`; 0: not known
    seed: int = 0
    workers: int = field(default_factory=default_workers)  # threads that read and augment

    @property
    def batch_size(self) -> int:
        """Images per optimiser step over all devices."""
        return self.images_per_device * self.device_count

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate of the run."""
        return self.learning_rate * LEARNING_RATE_FACTORS[self.learning_rate_scaling](self.device_count)

    def model_path(self, epoch: int) -> Path:
        """Model file of an epoch, counted from 1."""
        return self.logs / f"{self.prefix}_{self.name}_{epoch}.h5"

    def files_found(self) -> list[Path]:
        """What is there already under the names that a run would write to, sorted; of no other name."""
        model = re.compile(rf"{re.escape(self.prefix)}_{re.escape(self.name)}_[0-9]+\.h5")
        listed = self.logs.iterdir() if self.logs.is_dir() else ()
        found = [path for path in listed if model.fullmatch(path.name)]
        others = (
            self.best_path,
            self.state_path,
            self.table_path,
            self.curve_path,
            self.report_path,
            self.test_path,
        )
        found += [path for path in others if os.path.lexists(path)]
        if self.events_path.is_dir() and any(self.events_path.iterdir()):
            found.append(self.events_path)
        return sorted(found)

    @property
    def best_path(self) -> Path:
        """Model file of the best epoch so far."""
        return self.logs / f"{self.prefix}_{self.name}_best.h5"

    @property
    def state_path(self) -> Path:
        """File with what, beside the model of the last epoch, a resumed run needs."""
        return self.logs / f"{self.prefix}_{self.name}.state.h5"

    @property
    def table_path(self) -> Path:
        """CSV table with a row per epoch."""
        return self.logs / f"{self.name}.csv"

    @property
    def curve_path(self) -> Path:
        """Picture of the learning curve."""
        return self.logs / f"{self.name}.png"

    @property
    def report_path(self) -> Path:
        """The report of the run, an HTML file."""
        return self.logs / f"{self.name}.html"

    @property
    def test_path(self) -> Path:
        """Scores on the images that were left out, a JSON file."""
        return self.logs / f"{self.name}_test.json"

    @property
    def events_path(self) -> Path:
        """Directory of the event files that TensorBoard shows."""
        return self.logs / "tensorboard" / self.name
