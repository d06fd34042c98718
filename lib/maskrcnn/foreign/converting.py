"""A model of another program as a file of ours, without building its network."""

from __future__ import annotations

from pathlib import Path

from ann.errors import ModelFileError
from ann.weights import ModelFile, save_model
from ann.weights.loading import weights_as_float32
from ann.weights.model_file import ArrayReader


def is_imported(model: ModelFile) -> bool:
    """Whether the model comes from a checkpoint of another program."""
    return bool(model.notes)


def write_model(model: ModelFile, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a model as an `.h5` file that describes itself, classes and scaling included.

    Memory: all of its weights, some hundred MB.

    Raises:
        ModelFileError: the file exists and may not be overwritten, or can't be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ModelFileError(f"{path} exists already. Choose another name, or use --overwrite")
    with ArrayReader(model) as reader:
        layout = [
            (
                layer,
                [
                    (array.name, weights_as_float32(reader.layer_array(layer, position), layer, model))
                    for position, array in enumerate(arrays)
                ],
            )
            for layer, arrays in model.layers.items()
        ]
    save_model(path, layout, model.config, {"imported": list(model.notes)})
