"""Look into a checkpoint of PyTorch, a pickle of NumPy arrays or a safetensors file, in a process of its own.

The twin of `inspection.py` for these formats, under the same limits and with the same kind of answer: for
each tensor its name, shape, type and position in the file. No number is read here, and nothing of what a
pickle names is imported or called (`pickle_contents.py`).

Of a checkpoint with more in it (optimiser, scheduler, counters) only the tensors of the network are listed.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import zipfile
import zlib
from typing import BinaryIO

from ann.weights.inspection import CPU_LIMIT, MAX_RANK, Refused, limit_this_process, quoted
from ann.weights.pickle_contents import Array, Tensor, is_whole, read_pickle

MAX_TENSORS = 20_000
MAX_HEADER = 1 << 26  # bytes of a safetensors header; a real one has 0.1 MB
MAX_MEMBERS = 100_000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net", "weights", "module")
ITEM_SIZES = {
    "bfloat16": 2,
    "f2": 2,
    "f4": 4,
    "f8": 8,
    "i1": 1,
    "i2": 2,
    "i4": 4,
    "i8": 8,
    "u1": 1,
    "u2": 2,
    "u4": 4,
    "u8": 8,
}
SAFETENSORS_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bfloat16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, UnicodeError, EOFError)
TRUNCATED = "it ends too early: the download or copy was cut short"


def contents(path: str) -> dict:
    """Table of contents of a file, ready for JSON.

    Returns:
        `tensors`: [name, shape, type, position, bytes from there on, strides or None, as_text]: type in
        NumPy's notation with the byte order, or `<bfloat16`; strides count numbers, None for rows in order;
        as_text: the bytes stand there as UTF-8 of their Latin-1 text.

    Raises:
        Refused: something in it that is not read.
    """
    with open(path, "rb") as file:
        start = file.read(16)
        file.seek(0)
        if start.startswith(b"PK"):
            try:
                return zip_contents(file)
            except ZIP_ERRORS as error:
                raise Refused(f"it is a damaged ZIP archive ({str(error)[:100]})") from error
        if is_safetensors(start):
            return safetensors_contents(file)
        return pickle_contents(file)


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so is a safetensors file: the length of a JSON object, and the object."""
    return start[8:9] == b"{" and 0 < struct.unpack("<Q", start[:8])[0] <= MAX_HEADER


def file_size(file: BinaryIO) -> int:
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(place)
    return size


# zip files, as torch writes them since 1.6


def zip_contents(file: BinaryIO) -> dict:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise Refused(f"{TRUNCATED} ({error})") from error
    members = {member.filename: member for member in archive.infolist()}
    if len(members) > MAX_MEMBERS:
        raise Refused(f"it has {len(members)} members")
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused(describe_archive(list(members)))
    root = pickles[0][: -len("data.pkl")]
    if f"{root}constants.pkl" in members or any(name.startswith(f"{root}code/") for name in members):
        raise Refused(
            "it is a TorchScript program and not weights. Save the weights with "
            "torch.save(model.state_dict(), FILE)"
        )
    order = "<"
    if f"{root}byteorder" in members:
        order = ">" if small_member(archive, members[f"{root}byteorder"], 16).strip() == b"big" else "<"
    start = member_start(file, members[pickles[0]])
    file.seek(start)
    value = read_pickle(Section(file, start, members[pickles[0]].file_size))
    places: dict[str, tuple[int, int]] = {}

    def place_of(storage) -> tuple[int, int]:
        if storage.key not in places:
            name = f"{root}data/{storage.key}"
            if name not in members:
                raise Refused(f"the numbers {quoted(name)} are missing from it")
            places[storage.key] = (member_start(file, members[name]), members[name].file_size)
        return places[storage.key]

    return table(value, place_of, order)


def describe_archive(names: list[str]) -> str:
    """What a zip file is that torch has not written."""
    ends = {name.rpartition(".")[2].lower() for name in names}
    if "emd" in ends or "dlpk" in ends:
        return (
            "it is an Esri deep learning package (.dlpk): an archive of a model, its description (.emd) "
            "and a program to run it. Unpack it; the .pth inside can be used if it is one of the models "
            "that the manual lists"
        )
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return "it is a .keras file. Give the .h5 file of a model, or a checkpoint of PyTorch"
    inside = [name for name in names if name.endswith((".pth", ".pt", ".pkl", ".safetensors", ".h5"))]
    found = f" ({quoted(inside[0])})" if inside else ""
    return f"it is a ZIP archive and no checkpoint of PyTorch. Unpack it and give the model inside{found}"


def small_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.file_size > limit or member.flag_bits & 1:
        raise Refused(f"its member {quoted(member.filename)} is not what torch writes")
    return archive.read(member)


def member_start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Position of a member's bytes, which must be stored as they are."""
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.flag_bits & 1
        or member.file_size != member.compress_size
    ):
        raise Refused(
            f"its member {quoted(member.filename)} is compressed or encrypted, which torch never does: "
            "unpack it"
        )
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(b"PK\3\4"):
        raise Refused(TRUNCATED)
    name, extra = struct.unpack("<HH", header[26:30])
    start = member.header_offset + 30 + name + extra
    if start + member.file_size > file_size(file):
        raise Refused(TRUNCATED)
    return start


class Section:
    """A part of a file, read from its start, with positions of the whole file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self._file, self._end = file, start + size

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline(max(0, self._end - self._file.tell()))


# pickles alone: older files of torch, and NumPy arrays as detectron2's model zoo has them


def pickle_contents(file: BinaryIO) -> dict:
    whole = Section(file, 0, file_size(file))
    value = read_pickle(whole)
    if value != LEGACY_MAGIC:
        return table(value, no_storage, "<")
    if read_pickle(whole) != LEGACY_PROTOCOL:
        raise Refused("it is a file of an unknown version of PyTorch")
    system = read_pickle(whole)
    order = ">" if isinstance(system, dict) and system.get("little_endian") is False else "<"
    value = read_pickle(whole)
    keys = read_pickle(whole)
    if not isinstance(keys, list) or len(keys) > MAX_TENSORS:
        raise Refused("it has no list of its numbers")
    sizes = storage_sizes(value)
    places, end = {}, file_size(file)
    for key in map(str, keys):
        count = file.read(8)
        if len(count) != 8:
            raise Refused(TRUNCATED)
        count = struct.unpack(f"{order}q", count)[0]
        if key not in sizes:  # of something that is not listed; its length in bytes is not known
            raise Refused("it has numbers that nothing in it refers to")
        size = count * sizes[key]
        if count < 0 or file.tell() + size > end:
            raise Refused(TRUNCATED)
        places[key] = (file.tell(), size)
        file.seek(size, 1)

    def place_of(storage) -> tuple[int, int]:
        if storage.key not in places:
            raise Refused(f"the numbers {quoted(storage.key)} are missing from it")
        return places[storage.key]

    return table(value, place_of, order)


def no_storage(storage):
    raise Refused("it refers to numbers in another file")


def storage_sizes(value: object) -> dict[str, int]:
    """Bytes of a number of each storage that a value refers to."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            sizes[one.storage.key] = ITEM_SIZES[one.storage.dtype]
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, dict) else one)
    return sizes


# safetensors


def safetensors_contents(file: BinaryIO) -> dict:
    size = file_size(file)
    length = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
    if not 0 < length <= min(size - 8, MAX_HEADER):
        raise Refused(TRUNCATED)
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise Refused(f"its header can't be read ({str(error)[:100]})") from error
    if not isinstance(header, dict):
        raise Refused("its header is no list of tensors")
    entries = []
    for name, values in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (start, end) = values["dtype"], values["shape"], values["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise Refused(f"its tensor {quoted(name)} is not described") from error
        if kind not in SAFETENSORS_TYPES:
            raise Refused(
                f"its tensor {quoted(name)} has numbers of the type {quoted(str(kind))}, which is not read"
            )
        if not isinstance(shape, list) or len(shape) > MAX_RANK or not is_whole(*shape, start, end):
            raise Refused(f"its tensor {quoted(name)} has an impossible shape or place")
        dtype = SAFETENSORS_TYPES[kind]
        if end - start != math.prod(shape) * ITEM_SIZES[dtype]:
            raise Refused(f"its tensor {quoted(name)} has {end - start} bytes, which does not fit its shape")
        if 8 + length + end > size:
            raise Refused(TRUNCATED)
        entries.append([name, shape, f"<{dtype}", 8 + length + start, end - start, None, False])
    return {"tensors": checked(entries)}


# the tensors of a network


def table(value: object, place_of, order: str) -> dict:
    """The table for a value that holds a network's tensors by name, on its own or in one of the usual
    wrappers.
    """
    if not isinstance(value, dict):
        raise Refused("it holds no tensors by name")
    held = state_dict_of(value)
    if held is None:
        names = ", ".join(quoted(str(name)) for name in list(value)[:8]) or "nothing"
        raise Refused(f"it holds no weights of a network under the usual names; in it: {names}")
    entries = []
    for name, item in held.items():
        if isinstance(item, Tensor):
            entries.append(tensor_entry(str(name), item, place_of, order))
        elif isinstance(item, Array):
            entries.append(array_entry(str(name), item))
    return {"tensors": checked(entries)}


def state_dict_of(value: dict) -> dict | None:
    """The dict of tensors by name: the value itself, or what a wrapper in it holds (two deep)."""
    for candidate in (value, *(value.get(name) for name in WRAPPERS)):
        if isinstance(candidate, dict):
            tensors = sum(isinstance(item, Tensor | Array) for item in candidate.values())
            if tensors and 2 * tensors >= len(candidate):
                return candidate
    for name in WRAPPERS:
        inner = value.get(name)
        if isinstance(inner, dict) and inner is not value:
            for deeper in WRAPPERS:
                candidate = inner.get(deeper)
                if isinstance(candidate, dict) and any(
                    isinstance(one, Tensor | Array) for one in candidate.values()
                ):
                    return candidate
    return None


def checked(entries: list) -> list:
    if len(entries) > MAX_TENSORS:
        raise Refused(f"it has {len(entries)} tensors")
    if not entries:
        raise Refused("there is no tensor in it")
    return entries


def tensor_entry(name: str, tensor: Tensor, place_of, order: str) -> list:
    storage = tensor.storage
    item = ITEM_SIZES[storage.dtype]
    start, size = place_of(storage)
    count = math.prod(tensor.shape)
    span = (
        1 + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
        if count
        else 0
    )
    if (tensor.offset + span) * item > size:
        raise Refused(f"its tensor {quoted(name)} reaches beyond the numbers that are there")
    if span > 16 * count + 4096:
        raise Refused(f"its tensor {quoted(name)} is scattered over {span} numbers, of which it has {count}")
    strides = None if tensor.strides == in_order(tensor.shape) or count <= 1 else list(tensor.strides)
    dtype = f"{'|' if item == 1 else order}{storage.dtype}"
    return [name, list(tensor.shape), dtype, start + tensor.offset * item, span * item, strides, False]


def array_entry(name: str, array: Array) -> list:
    if array.dtype is None or array.data is None:
        raise Refused(f"its array {quoted(name)} is damaged")
    item = ITEM_SIZES[array.dtype.name]
    size = math.prod(array.shape) * item
    if not array.data.as_text and array.data.size != size:
        raise Refused(f"its array {quoted(name)} has {array.data.size} bytes, which does not fit its shape")
    order = {"=": "<"}.get(array.dtype.order, array.dtype.order)
    strides = None
    if array.fortran and len(array.shape) > 1:
        strides = [math.prod(array.shape[:axis]) for axis in range(len(array.shape))]
    dtype = f"{'|' if item == 1 else order}{array.dtype.name}"
    return [name, list(array.shape), dtype, array.data.position, array.data.size, strides, array.data.as_text]


def in_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an array whose numbers stand row by row."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def main(path: str) -> int:
    """Print the table or {"error": ...} as JSON."""
    limit_this_process(
        CPU_LIMIT + (os.path.getsize(path) >> 24)
    )  # texts of protocol 2 are decoded to skip them
    try:
        result = contents(path)
    except Refused as error:
        result = {"error": str(error)}
    except Exception as error:  # whatever a broken file leads to
        result = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    json.dump(result, sys.stdout)
    return 0
