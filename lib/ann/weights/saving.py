"""Write model files: the legacy layout, a description and, if training is to go on, its state."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ann.config import ModelConfig
from ann.errors import ModelFileError
from ann.weights.description import DESCRIPTION, STATE_GROUP, write_description

ATTRIBUTE_LIMIT = 64512  # bytes of one HDF5 attribute, less its header; where Keras splits as well


def values_of(variable) -> np.ndarray:
    """A Keras variable's values (or anything with them in `numpy()` or `__array__`), floats as float32."""
    values = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
    return np.ascontiguousarray(values, dtype=np.float32).reshape(values.shape)


def write_strings(attributes, name: str, texts: Sequence[str]) -> None:
    """Write a list of strings as an attribute, split into `name0`, `name1`, ... where it is too long."""
    values = np.array([text.encode() for text in texts], dtype="S") if texts else np.array([], dtype="S1")
    if values.itemsize > ATTRIBUTE_LIMIT:
        raise ValueError(
            f"Expected names of at most {ATTRIBUTE_LIMIT} bytes, received one of {values.itemsize}"
        )
    parts = max(1, -(-values.nbytes // ATTRIBUTE_LIMIT))
    while parts > 1 and max(part.nbytes for part in np.array_split(values, parts)) > ATTRIBUTE_LIMIT:
        parts += 1
    if parts == 1:
        attributes[name] = values
    else:
        for number, part in enumerate(np.array_split(values, parts)):
            attributes[f"{name}{number}"] = part


def write_text(attributes, name: str, text: str) -> None:
    """Write one text, which ASCII suffices for, as an attribute; split like a list where it is too long."""
    data = text.encode("ascii")
    if len(data) <= ATTRIBUTE_LIMIT:
        attributes[name] = np.bytes_(data)
    else:
        for number, start in enumerate(range(0, len(data), ATTRIBUTE_LIMIT)):
            attributes[f"{name}{number}"] = np.bytes_(data[start : start + ATTRIBUTE_LIMIT])


def state_array(name: str, values) -> np.ndarray:
    """An array of the training state as it is stored; truth values become uint8."""
    array = np.asarray(values.numpy() if hasattr(values, "numpy") else values)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"Expected numbers in the training state, received {array.dtype} as {name!r}")
    return np.ascontiguousarray(array).reshape(array.shape)


def save_model(
    path: str | Path,
    layout: Sequence[tuple[str, Sequence[tuple[str, object]]]],
    config: ModelConfig,
    extra: Mapping | None = None,
    extra_arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a model file; the file of that name is replaced only after all is on the disk.

    Args:
        path: the `.h5` file; its directory must exist.
        layout: [(layer name, [(dataset name, variable)])] in the order of the file; a variable is a Keras
            variable or an array.
        config: the model's description.
        extra: what else to keep of the training: anything that JSON can hold, e.g. epoch, stage, losses.
        extra_arrays: numeric arrays by name with which a training resumes, e.g. the optimiser's variables.

    Raises:
        ModelFileError: the file can't be written, or a weight is not finite: a model that has diverged does
            not replace one that works.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.part")
    try:
        try:
            partial.unlink(missing_ok=True)  # left by a process that was killed
            write_file(partial, layout, config, extra, extra_arrays or {})
            synchronise(partial)
            os.replace(partial, target)
            synchronise(target.parent)
        finally:
            partial.unlink(missing_ok=True)
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(
            f"Model file {path} can't be written: {error.strerror or error}. "
            "Check that the directory exists, that you may write there, and the free space"
        ) from error


def write_file(
    path: Path, layout, config: ModelConfig, extra, extra_arrays: Mapping[str, np.ndarray]
) -> None:
    """Write everything into a new file."""
    import h5py  # here, since whoever only reads needs no HDF5 in its process

    checksums: dict[str, list[int]] = {}
    with h5py.File(path, "x") as file:
        write_strings(file.attrs, "layer_names", [name for name, _ in layout])
        # What the layout means, not what wrote it: Keras converts kernels of other backends and of version 1.
        file.attrs["backend"] = np.bytes_(b"tensorflow")
        file.attrs["keras_version"] = np.bytes_(b"2.2.4")
        for layer, variables in layout:
            group = file.create_group(layer)
            write_strings(group.attrs, "weight_names", [name for name, _ in variables])
            for name, variable in variables:
                values = values_of(variable)
                if not np.isfinite(values).all():
                    raise ModelFileError(
                        f"Layer {layer} ({name}) has weights that are not finite: the training has diverged, "
                        "and the model was not saved. Lower the learning rate"
                    )
                group.create_dataset(name, data=values)
                checksums.setdefault(f"/{layer}", []).append(zlib.crc32(values.reshape(-1).view(np.uint8)))
        if extra_arrays:
            group = file.create_group(STATE_GROUP)
            write_strings(group.attrs, "names", list(extra_arrays))
            for number, (name, values) in enumerate(extra_arrays.items()):
                array = state_array(name, values)
                group.create_dataset(str(number), data=array)
                checksums.setdefault("state", []).append(zlib.crc32(array.reshape(-1).view(np.uint8)))
        write_text(file.attrs, DESCRIPTION, write_description(config, extra, checksums))


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows keeps no handle for a directory
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
