"""What a run needs to go on after an interruption: weights, the optimiser's variables, and their epoch.

The order of images and all random draws follow from the seed and the step number, so these are not stored.
"""

from __future__ import annotations

from pathlib import Path

import keras

from ann.errors import ModelFileError
from ann.weights import read_training_state, save_model
from maskrcnn.config import MaskRCNNConfig


def save_state(
    path: Path, layout: list, config: MaskRCNNConfig, optimizer: keras.optimizers.Optimizer, extra: dict
) -> None:
    """Write the state after an epoch, in place of that of the epoch before. extra: see `save_model`."""
    arrays = {
        f"{index} {variable.path}": variable.numpy() for index, variable in enumerate(optimizer.variables)
    }
    save_model(path, layout, config, extra=extra, extra_arrays=arrays)


def restore_optimizer(path: Path, optimizer: keras.optimizers.Optimizer) -> None:
    """Give an optimiser, which must be built, the variables that were saved.

    Raises:
        ModelFileError: the state belongs to another network or other trained layers.
    """
    saved = list(read_training_state(path).values())
    if [tuple(variable.shape) for variable in optimizer.variables] != [array.shape for array in saved]:
        raise ModelFileError(
            f"The training state {path} was saved by a run with other settings. Give the run another name, "
            "or delete the state to start anew from the model"
        )
    for variable, array in zip(optimizer.variables, saved, strict=True):
        variable.assign(array)
