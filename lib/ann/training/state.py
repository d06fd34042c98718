"""What a run needs to go on after an interruption: weights, the optimiser's variables, and how far it was.

The order of images and all random draws follow from the seed and the step number, so these are not stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import keras

from ann.config import ModelConfig
from ann.errors import ModelFileError
from ann.weights import read_model, read_training_state, save_model
from ann.weights.kind import ModelKind


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is at the end of an epoch.

    staged: see `TrainingSettings`. layers, stage_first: those trained, and since which epoch, "" where the
    file does not tell; batches: taken so far, -1 where the file does not tell; seconds: used up of limited
    time, 0 without a limit, and once all of it is used.
    """

    epoch: int = 0
    staged: bool = False
    layers: str = ""
    stage_first: int = 1
    batches: int = -1
    seconds: float = 0.0


def save_state(
    path: Path,
    layout: list,
    config: ModelConfig,
    optimizer: keras.optimizers.Optimizer,
    progress: Progress,
) -> None:
    """Write the state after an epoch, in place of that of the epoch before."""
    arrays = {
        f"{index} {variable.path}": variable.numpy() for index, variable in enumerate(optimizer.variables)
    }
    save_model(path, layout, config, extra=asdict(progress), extra_arrays=arrays)


def read_progress(path: Path, kind: ModelKind) -> Progress:
    """What `save_state` wrote; older versions wrote less."""
    extra = read_model(path, kind).extra
    names = {one.name: type(one.default) for one in fields(Progress)}
    return Progress(**{name: kind(extra[name]) for name, kind in names.items() if name in extra})


def restore_optimizer(path: Path, kind: ModelKind, optimizer: keras.optimizers.Optimizer) -> None:
    """Give an optimiser, which must be built, the variables that were saved.

    Raises:
        ModelFileError: the state belongs to another network or other trained layers.
    """
    saved = list(read_training_state(read_model(path, kind)).values())
    if [tuple(variable.shape) for variable in optimizer.variables] != [array.shape for array in saved]:
        raise ModelFileError(
            f"The training state {path} was saved by a run with other settings. Give the run another name, "
            "or delete the state to start anew from the model"
        )
    for variable, array in zip(optimizer.variables, saved, strict=True):
        variable.assign(array)
