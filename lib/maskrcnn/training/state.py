"""What a resumed run needs beside the model: the optimiser's variables and the epoch they belong to."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import keras

from ..errors import ModelFileError


def save_state(path: Path, *, epoch: int, optimizer: keras.optimizers.Optimizer) -> None:
    """Write the state after an epoch, in place of that of the epoch before.

    The order of images and all random draws follow from the seed and the step number, so these need not
    be stored.
    """
    temporary = path.with_suffix(".part")
    with h5py.File(temporary, "w") as file:
        file.attrs["epoch"] = epoch
        for index, variable in enumerate(optimizer.variables):
            file[f"optimizer/{index}"] = keras.ops.convert_to_numpy(variable.value)
    os.replace(temporary, path)


def saved_epoch(path: Path) -> int:
    """Epoch of a saved state; 0 if there is none."""
    if not path.exists():
        return 0
    try:
        with h5py.File(path) as file:
            return int(file.attrs["epoch"])
    except (OSError, KeyError) as error:
        raise ModelFileError(f"The training state {path} can't be read ({error}). Delete it to start anew") from error


def restore_optimizer(path: Path, optimizer: keras.optimizers.Optimizer, trainable_variables: list) -> None:
    """Give the optimiser the variables that were saved.

    Raises:
        ModelFileError: the state belongs to another network or other trained layers.
    """
    optimizer.build(trainable_variables)
    with h5py.File(path) as file:
        saved = [file[f"optimizer/{index}"][()] for index in range(len(file["optimizer"]))]
    shapes = [tuple(variable.shape) for variable in optimizer.variables]
    if shapes != [array.shape for array in saved]:
        raise ModelFileError(
            f"The training state {path} was saved by a run with other settings. Give the run another name, "
            "or delete the state to start anew from the model"
        )
    for variable, array in zip(optimizer.variables, saved, strict=True):
        variable.assign(array)
