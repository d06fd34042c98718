"""What has to be known of PNG, JPEG and TIFF files before GDAL reads them: that they are whole, and that
their pixels are stored the way they are shown.

Sources: PNG (Third Edition), 5 and 11.3.4.5; ITU-T T.81, annex B; TIFF 6.0, section 2; Exif 2.32, 4.6.4
(Orientation), 4.7.2 (APP1).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from ann.data.text import check_encoding
from ann.errors import DatasetError

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
TIFF_STARTS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
ORIENTATION = 274  # tag of TIFF and Exif; 1 is upright, 2 to 8 are turned or mirrored
UPRIGHT = 1


def check_file(path: str | Path) -> None:
    """A look at an image file without decoding it.

    Raises:
        DatasetError: see `file_orientation`; or its metadata says that it is to be turned or mirrored when
        shown.
    """
    orientation = file_orientation(path)
    if orientation != UPRIGHT:
        raise DatasetError(
            f"Image {path} is stored turned or mirrored: its metadata (orientation {orientation}) asks "
            "viewers to turn it, which labels may or may not follow. Turn the pixels themselves (exiftran "
            "-ai, or mogrify -auto-orient), or remove the tag if the labels fit the pixels as stored "
            "(exiftool -Orientation= )."
        )


def file_orientation(path: str | Path) -> int:
    """How viewers turn the image of a file: 1 not at all, 2 to 8 as Exif has it. Nothing is decoded.

    Raises:
        DatasetError: it can't be opened; it is empty or, as PNG or JPEG, lacks its end.
    """
    check_encoding(path)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(8)
            if start.startswith(PNG_START):
                whole, orientation = _look_at_png(file)
            elif start.startswith(JPEG_START):
                whole, orientation = _look_at_jpeg(file, size)
            elif start[:4] in TIFF_STARTS:
                whole, orientation = True, _tiff_orientation(file, 0)
            else:
                whole, orientation = size > 0, UPRIGHT
    except OSError as error:
        raise DatasetError(f"File {path} can't be read ({error.strerror}). Check its permissions.") from error
    if not whole:
        raise DatasetError(f"Image {path} is truncated ({size} bytes). Copy it again or take it out.")
    return orientation if 1 < orientation <= 8 else UPRIGHT


def _look_at_png(file: BinaryIO) -> tuple[bool, int]:
    """(whether the file has its end, orientation)."""
    orientation = UPRIGHT
    file.seek(len(PNG_START))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return True, orientation
        after = file.tell() + length + 4
        if kind == b"eXIf":
            orientation = _tiff_orientation(file, file.tell())
        file.seek(after)
    return False, orientation


def _look_at_jpeg(file: BinaryIO, size: int) -> tuple[bool, int]:
    """(whether the file has its end, orientation). Other data may follow the end."""
    orientation = UPRIGHT
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xFF:  # fill
            file.seek(-3, os.SEEK_CUR)
            continue
        after = file.tell() - 2 + int.from_bytes(head[2:], "big")
        if head[1] == 0xE1 and file.read(6) == b"Exif\0\0":
            orientation = _tiff_orientation(file, file.tell())
        file.seek(after)
        if head[1] == 0xDA:
            return _has_end(file, size), orientation
    return False, orientation


def _has_end(file: BinaryIO, size: int) -> bool:
    """Whether the end of a JPEG image follows in what is left, which begins with coded data."""
    begin = file.tell()
    file.seek(max(begin, size - 4096))
    if b"\xff\xd9" in file.read():
        return True
    file.seek(begin)
    last = b""
    while block := file.read(1 << 20):  # coded data has no FF but before 00 and restart marks
        if b"\xff\xd9" in last + block:
            return True
        last = block[-1:]
    return False


def _tiff_orientation(file: BinaryIO, begin: int) -> int:
    """The orientation that a TIFF header, or the Exif data in a file of another kind, says; 1 if none."""
    try:
        file.seek(begin)
        head = file.read(16)
        order = TIFF_STARTS[head[:4]]
        big = b"+" in head[:4]
        (offset,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
        file.seek(begin + offset)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        entry = 20 if big else 12
        entries = file.read(min(count, 4096) * entry)
        for start in range(0, len(entries), entry):
            if struct.unpack_from(order + "H", entries, start)[0] == ORIENTATION:
                return struct.unpack_from(order + "H", entries, start + (12 if big else 8))[0]
    except (KeyError, struct.error):  # no such data after all, or cut: the reader will tell
        pass
    return UPRIGHT
