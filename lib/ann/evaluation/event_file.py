"""Event files that TensorBoard shows: numbers by name and step.

The format is a row of records (length, its checksum, data, its checksum), the data one protocol buffer
`Event` with a few fields. It is written here, because the libraries that do it import a whole backend.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

PREFIX = "events.out.tfevents."
# Types of protocol buffers' fields: a number of variable length, 8 bytes, a length and bytes, 4 bytes
VARIABLE, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
SESSION_START = 1


class EventFile:
    """Adds scalars to a directory of event files, in a file of its own.

    first_step: what earlier files of the directory hold of this step and later ones is no longer shown;
    with 1 they are removed. Nothing is written before the first scalars.
    """

    def __init__(self, directory: Path, *, first_step: int = 1):
        self._directory, self._first_step = directory, first_step
        self._path: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of a step; those that are no numbers are left out."""
        values = b"".join(
            _field(
                1, BYTES, _field(1, BYTES, name.encode()) + _field(2, FOUR_BYTES, struct.pack("<f", value))
            )
            for name, value in scalars.items()
            if math.isfinite(value)
        )
        start = b"" if self._path else self._begin()
        with self._path.open("ab") as file:
            file.write(start + _record(_event(step, _field(5, BYTES, values))))

    def _begin(self) -> bytes:
        """Choose the file; returns the records that it begins with."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._first_step == 1:
            for old in self._directory.glob(f"{PREFIX}*"):
                old.unlink()
        self._path = self._directory / f"{PREFIX}{time.time_ns()}.{os.getpid()}"
        version = _event(0, _field(3, BYTES, b"brain.Event:2"))
        session = _event(self._first_step, _field(7, BYTES, _field(1, VARIABLE, _variable(SESSION_START))))
        return _record(version) + _record(session)


def _event(step: int, what: bytes) -> bytes:
    now = struct.pack("<d", time.time())
    return _field(1, EIGHT_BYTES, now) + _field(2, VARIABLE, _variable(step)) + what


def _field(number: int, kind: int, value: bytes) -> bytes:
    length = _variable(len(value)) if kind == BYTES else b""
    return _variable(number << 3 | kind) + length + value


def _variable(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the eighth says that more follow."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned and shifted as the format wants it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 255] ^ value >> 8
    value ^= 0xFFFFFFFF
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()
