"""Read model files: what is in them, and their arrays.

A model file is one HDF5 file in the layout of the legacy Mask R-CNN models: a group per layer, the layers'
order in the attribute `layer_names`, each layer's arrays in `weight_names`. Ours carry a description beside
(`description.py`) and, if training is to go on, its state; files without are recognised by their layers.

HDF5 itself is parsed by a process of its own (`inspection.py`), so that no file, however broken or hostile,
takes this process down. Here only plain bytes are read, at positions checked against the file's size.
"""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ann.config import MODULES, ModelConfig
from ann.devices.parent import ending_with_this_process
from ann.errors import ModelFileError
from ann.weights.description import read_description
from ann.weights.kind import ModelKind, Recognised

SIGNATURE = b"\x89HDF\r\n\x1a\n"
INSPECTION_SECONDS = 120  # a real file takes 0.3 s, of which 0.2 are Python's start
COPY_AGAIN = "Copy or download it again"
# the library's folder instead of the working directory, in which there may be a module of any name
CHECKPOINT_INSPECTION = """
import sys
sys.path[0] = sys.argv[1]
from ann.weights.checkpoint_contents import main
sys.exit(main(sys.argv[2]))
"""
ALLOWED_TYPES = tuple(
    order + kind for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
)
ALLOWED_TYPES += ("|i1", "|u1")


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: `dtype` in numpy's notation, `position` in bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    position: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class DerivedArray:
    """An array that is made of others when it is asked for: `rule` gets them in the order of `sources`.

    A rule may raise ValueError: what is stored makes no array of that shape.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[StoredArray | DerivedArray, ...]
    rule: Callable[..., np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a model file holds. No array is read before it is asked for.

    `layers`: arrays by layer name, both in the file's order; layers without arrays are in it too.
    `backbone`, `bands`, `class_count` (with the background; None in a file with a backbone only) come from
    the layers. `extra` is what was given to `save_model`. `has_description`: it knows the names of its
    classes.
    """

    path: Path
    layers: Mapping[str, tuple[StoredArray | DerivedArray, ...]]
    backbone: str
    bands: int
    class_count: int | None
    has_description: bool
    kind: ModelKind
    described: ModelConfig | None = None
    extra: dict = field(default_factory=dict)
    training_state: tuple[StoredArray, ...] = ()
    checksums: Mapping[str, list] = field(default_factory=dict)
    stamp: tuple[int, ...] = ()  # tells whether the file was replaced since
    notes: tuple[str, ...] = ()  # sentences for the user: what was assumed of the model, and on what ground

    @property
    def config(self) -> ModelConfig:
        """The model's description; of a file without one what its layers say, see `ModelKind.undescribed`.

        Raises:
            ModelFileError: the layers don't say enough.
        """
        if self.described is not None:
            return self.described
        try:
            return self.kind.undescribed(
                Recognised(backbone=self.backbone, bands=self.bands, class_count=self.class_count)
            )
        except ModelFileError as error:
            raise ModelFileError(f"Model file {self.path} {error}") from error

    def read(self, layer: str, position: int) -> np.ndarray:
        """The array of that position in a layer, as stored (see `open_arrays` for many)."""
        with ArrayReader(self) as reader:
            return reader.layer_array(layer, position)


class ArrayReader:
    """Reads arrays of a model file that is kept open meanwhile; a context manager."""

    def __init__(self, model: ModelFile):
        self.model = model

    def __enter__(self):
        try:
            self.file = open(self.model.path, "rb")
        except OSError as error:
            raise ModelFileError(f"Model file {self.model.path} can't be read: {error.strerror}") from error
        if file_stamp(os.fstat(self.file.fileno())) != self.model.stamp:
            self.file.close()
            raise ModelFileError(f"Model file {self.model.path} was changed while it was read. Start again")
        return self

    def __exit__(self, *exception):
        self.file.close()

    def array(self, stored: StoredArray, checksum: int | None, where: str) -> np.ndarray:
        """The array in this machine's byte order, after a comparison with its checksum if there is one."""
        values = np.empty(stored.shape, dtype=stored.dtype)
        self.file.seek(stored.position)
        raw = values.reshape(-1).view(np.uint8)
        if self.file.readinto(raw) != stored.size:
            raise ModelFileError(f"Model file {self.model.path} ends within {where}. {COPY_AGAIN}")
        if checksum is not None and zlib.crc32(raw) != checksum:
            raise ModelFileError(
                f"Model file {self.model.path} is damaged: {where} is not what was written. {COPY_AGAIN}"
            )
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def derived_array(self, derived: StoredArray | DerivedArray, where: str) -> np.ndarray:
        """An array without a checksum, computed where it is not stored as it is."""
        if isinstance(derived, StoredArray):
            return self.array(derived, None, where)
        try:
            values = derived.rule(*(self.derived_array(source, where) for source in derived.sources))
        except ModelFileError:
            raise
        except (ValueError, MemoryError) as error:
            raise ModelFileError(
                f"Model file {self.model.path} is damaged: {where}: {error}. {COPY_AGAIN}"
            ) from error
        if values.shape != derived.shape:
            raise ValueError(f"Expected the shape {derived.shape} of {where}, received {values.shape}")
        return values

    def layer_array(self, layer: str, position: int) -> np.ndarray:
        """One array of a layer."""
        stored = self.model.layers[layer][position]
        if isinstance(stored, DerivedArray):
            return self.derived_array(stored, f"layer {layer} ({stored.name})")
        return self.array(
            stored, checksum_of(self.model, f"/{layer}", position), f"layer {layer} ({stored.name})"
        )


def checksum_of(model: ModelFile, key: str, position: int) -> int | None:
    """The stored checksum of an array, or None."""
    sums = model.checksums.get(key)
    return sums[position] if isinstance(sums, list) and position < len(sums) else None


def file_stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or rewritten."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_regular_file(path: Path) -> tuple[os.stat_result, bytes]:
    """A file's status and its first 512 bytes.

    Raises:
        ModelFileError: no file, none that may be read, or an empty one.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"Model {path} is a directory. Name the model file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"Model {path} is not a regular file. Name the model file")
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise ModelFileError(f"Model file {path} does not exist. Check the path") from error
    except PermissionError as error:
        raise ModelFileError(
            f"Model file {path} may not be read. Ask its owner for read permission"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"Model file {path} can't be read: {error}") from error
    if not start:
        raise ModelFileError(f"Model file {path} is empty. {COPY_AGAIN}")
    return status, start


def check_is_hdf5(path: Path) -> os.stat_result:
    """Refuse what is not a readable HDF5 file, before any library looks at it."""
    status, start = open_regular_file(path)
    found = start.startswith(SIGNATURE)
    try:
        with path.open("rb") as file:
            offset = 512
            while not found and offset < status.st_size:  # behind a user block: at 512, 1024, 2048, ...
                file.seek(offset)
                found = file.read(8) == SIGNATURE
                offset *= 2
    except OSError as error:
        raise ModelFileError(f"Model file {path} can't be read: {error}") from error
    if not found:
        other = no_model(start)
        if start.startswith(b"PK\3\4"):
            other = "a ZIP archive (a .keras or PyTorch file, or an archive to unpack first)"
        but = f" but {other}" if other else ""
        raise ModelFileError(f"Model file {path} is no HDF5 file{but}. Name the .h5 file of a model")
    return status


def no_model(start: bytes) -> str | None:
    """What a file is, by its first bytes, that is often found under a model's name; None if it is nothing
    of the kind.
    """
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the download failed"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: run `git lfs pull`"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "compressed: unpack it first"
    return None


def inspect(path: Path, kind: str = "HDF5") -> dict:
    """The table of contents of an HDF5 file or of a checkpoint, made by another process.

    See `inspection.contents` and `checkpoint_contents.contents`.
    """
    python = sys.executable or "python3"
    if kind == "HDF5":
        command = [python, str(Path(__file__).with_name("inspection.py")), os.path.abspath(path)]
    else:
        command = [python, "-c", CHECKPOINT_INSPECTION, str(Path(__file__).parents[2]), os.path.abspath(path)]
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    broken = f"Model file {path} is damaged or made to do harm"
    try:
        done = subprocess.run(
            ending_with_this_process(command),
            env=environment,
            capture_output=True,
            timeout=INSPECTION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(f"{broken}: reading its contents takes for ever. {COPY_AGAIN}") from error
    if done.returncode == 0:
        try:
            table = json.loads(done.stdout)
        except ValueError as error:
            raise ModelFileError(f"{broken}: its table of contents makes no sense. {COPY_AGAIN}") from error
        if "error" in table:
            raise ModelFileError(
                f"Model file {path} can't be used: {table['error']}. {COPY_AGAIN}, or use another model"
            )
        return table
    if b"ModuleNotFoundError" in done.stderr:
        raise ModuleNotFoundError(
            "h5py is needed to read model files: python3 -m pip install h5py", name="h5py"
        )
    raise ModelFileError(
        f"{broken}: reading its contents fails (exit status {done.returncode}). {COPY_AGAIN}"
    )


def stored_arrays(entries: list, file_size: int, where: str) -> tuple[StoredArray, ...]:
    """Entries of the table of contents, each checked to lie inside of the file."""
    arrays = tuple(
        StoredArray(str(name), tuple(shape), dtype, position) for name, shape, dtype, position in entries
    )
    for array in arrays:
        whole = all(
            isinstance(number, int) and 0 <= number <= file_size for number in (*array.shape, array.position)
        )
        if not whole or array.dtype not in ALLOWED_TYPES or array.position + array.size > file_size:
            raise ModelFileError(f"{where} reaches beyond the file's end. {COPY_AGAIN}")
    return arrays


def read_model(path: str | Path, kind: ModelKind) -> ModelFile:
    """Read what a model file of this kind holds; takes 0.3 s and hardly any memory, whatever its size.

    Raises:
        ModelFileError: no file, no HDF5, damaged, of another network, or with anything in it that is not
            plain numbers and text.
    """
    path = Path(path)
    status = check_is_hdf5(path)
    table = inspect(path)
    try:
        layers = {
            name: stored_arrays(entries, status.st_size, f"layer {name}") for name, entries in table["layers"]
        }
        state = stored_arrays(table["state"], status.st_size, "the training state")
        everything = [array for arrays in layers.values() for array in arrays] + list(state)
        if sum(array.size for array in everything) > status.st_size:
            raise ModelFileError(f"its arrays are larger than the file. {COPY_AGAIN}")
        described, extra, checksums = None, {}, {}
        if table["description"] is not None:
            described, extra, checksums = read_description(kind, table["description"])
    except ModelFileError as error:
        raise ModelFileError(f"Model file {path} can't be used: {error}") from error
    if described is None and kind.undescribed is None:
        raise ModelFileError(
            f"Model file {path} can't be used: it has no description. It was not made by "
            f"{MODULES[kind.config.network][0]}; use a model that was"
        )
    model = ModelFile(
        path=path,
        layers=layers,
        **asdict(completed(kind.recognise(path, layers), kind, described)),
        has_description=described is not None,
        kind=kind,
        described=described,
        extra=extra,
        training_state=state,
        checksums=checksums,
        stamp=file_stamp(status),
    )
    check_description_fits(model)
    return model


def completed(found: Recognised, kind: ModelKind, described: ModelConfig | None) -> Recognised:
    """Where files always have a description, it says what the layers don't."""
    if kind.undescribed is not None:
        return found
    said = Recognised(backbone=described.backbone, bands=described.bands, class_count=described.class_count)
    return Recognised(
        **(asdict(said) | {name: one for name, one in asdict(found).items() if one is not None})
    )


def check_description_fits(model: ModelFile) -> None:
    """Refuse a description that speaks of another network than the layers beside it."""
    config = model.described
    if config is None:
        return
    for what, said, held in (
        ("backbone", config.backbone, model.backbone),
        ("number of bands", config.bands, model.bands),
        ("number of classes with the background", config.class_count, model.class_count),
    ):
        if said != held:
            raise ModelFileError(
                f"Model file {model.path} contradicts itself: {what} {said} in its description, "
                f"{held} in its layers. Use another model"
            )


def read_training_state(model: ModelFile) -> dict[str, np.ndarray]:
    """The arrays that `save_model` got as `extra_arrays`, by name; an empty dict if the file has none."""
    with ArrayReader(model) as reader:
        return {
            stored.name: reader.array(
                stored, checksum_of(model, "state", number), f"training state {stored.name}"
            )
            for number, stored in enumerate(model.training_state)
        }
