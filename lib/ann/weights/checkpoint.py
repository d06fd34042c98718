"""Checkpoints of PyTorch (`.pth`, `.pt`), pickles of NumPy arrays (`.pkl`) and safetensors files: tensors
by name.

Such a file is parsed by another process (`checkpoint_contents.py`), which neither imports nor calls what a
pickle names; here only plain bytes are read, at positions checked against the file's size. PyTorch is not
needed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ann.errors import ModelFileError
from ann.weights.model_file import (
    ALLOWED_TYPES,
    COPY_AGAIN,
    SIGNATURE,
    DerivedArray,
    StoredArray,
    file_stamp,
    inspect,
    no_model,
    open_regular_file,
)

MAX_HEADER = 1 << 26  # bytes of a safetensors header


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a network by name, none of which is read before it is asked for.

    stamp: tells whether the file was
    replaced.
    """

    path: Path
    tensors: Mapping[str, StoredArray | DerivedArray]
    stamp: tuple[int, ...]


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file looks like a checkpoint and not like an HDF5 file, by its first bytes.

    Raises:
        ModelFileError: it can't be read.
    """
    _, start = open_regular_file(Path(path))
    if start.startswith(SIGNATURE):
        return False
    zip_file = start.startswith(b"PK\3\4")
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\1", b"\2", b"\3", b"\4", b"\5")
    length = int.from_bytes(start[:8], "little")
    safetensors = start[8:9] == b"{" and 0 < length <= MAX_HEADER
    named = Path(path).suffix.lower() in (".pth", ".pt", ".pkl", ".pickle", ".safetensors", ".dlpk")
    return zip_file or pickled or safetensors or (named and b"\x89HDF" not in start)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """What tensors a checkpoint holds; takes some tenths of a second, whatever its size.

    Raises:
        ModelFileError: no file, damaged, or with anything in it that is not plain numbers, texts and
        containers.
    """
    path = Path(path)
    status, start = open_regular_file(path)
    if other := no_model(start):
        raise ModelFileError(f"Model file {path} is no checkpoint but {other}")
    table = inspect(path, "checkpoint")
    try:
        tensors = {str(entry[0]): array_of(entry, status.st_size, path) for entry in table["tensors"]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"Model file {path} is damaged or made to do harm: its table of contents makes no sense. "
            f"{COPY_AGAIN}"
        ) from error
    return Checkpoint(path=path, tensors=tensors, stamp=file_stamp(status))


def array_of(entry: list, size: int, path: Path) -> StoredArray | DerivedArray:
    """An entry of the table of contents, checked to lie inside of a file of `size` bytes."""
    name, shape, dtype, position, length, strides, as_text = entry
    bfloat16 = dtype[1:] == "bfloat16"
    plain = f"{dtype[0]}u2" if bfloat16 else dtype
    numbers = (*shape, position, length, *(strides or ()))
    whole = all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
    if not whole or plain not in ALLOWED_TYPES or position + length > size:
        raise ModelFileError(
            f"Model file {path}: its tensor {name!a} reaches beyond the file's end. {COPY_AGAIN}"
        )
    shape, item = tuple(shape), np.dtype(plain).itemsize
    if as_text:
        stored = StoredArray(name, (length,), "|u1", position)
        rule = functools.partial(from_text, shape=shape, dtype=plain, strides=strides)
        array = DerivedArray(name, shape, (stored,), rule)
    elif strides is None and length == math.prod(shape) * item:
        array = StoredArray(name, shape, plain, position)
    else:
        stored = StoredArray(name, (length // item,), plain, position)
        array = DerivedArray(name, shape, (stored,), functools.partial(strided, shape=shape, strides=strides))
    return DerivedArray(name, shape, (array,), from_bfloat16) if bfloat16 else array


def strided(numbers: np.ndarray, *, shape: tuple[int, ...], strides: list[int] | None) -> np.ndarray:
    """The array of that shape in a row of numbers."""
    if strides is None:
        return numbers[: math.prod(shape)].reshape(shape)
    view = np.lib.stride_tricks.as_strided(numbers, shape, [stride * numbers.itemsize for stride in strides])
    return np.array(view)


def from_text(
    raw: np.ndarray, *, shape: tuple[int, ...], dtype: str, strides: list[int] | None
) -> np.ndarray:
    """An array whose bytes stand as UTF-8 of the text that has them as Latin-1 (pickle protocol 2)."""
    try:
        data = raw.tobytes().decode().encode("latin-1")
    except UnicodeError as error:
        raise ValueError("its bytes make no text") from error
    if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"it has {len(data)} bytes, which does not fit its shape {shape}")
    values = np.frombuffer(data, dtype)
    return strided(values.astype(values.dtype.newbyteorder("=")), shape=shape, strides=strides)


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """float32 of the upper halves of their bits, uint16."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
