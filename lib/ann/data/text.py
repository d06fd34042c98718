"""Texts from outside (names of classes and files, values of tables) in one form, so that equal ones compare
equal.

A letter with an accent can be one character or two (Unicode normal forms NFC and NFD; macOS writes file names
in the latter), blanks are left at the ends of cells, Windows writes paths with backslashes, and tools for the
web escape blanks in them. Whatever comes in passes through here once.
"""

from __future__ import annotations

import csv
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from urllib.parse import unquote

from ann.errors import DatasetError

_LETTERS = re.compile(r"[^\W\d_]+")
_NEW_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def plain(text: object) -> str:
    """A text in Unicode normal form C, without blanks at its ends."""
    return unicodedata.normalize("NFC", str(text)).strip()


def split_names(text: str) -> list[str]:
    """The names that an option such as classes= lists, separated by commas.

    A name that holds a comma stands in double quotes: `building,"roof, flat"`.

    Raises:
        DatasetError: a quote is not closed, or something follows a closed one.
    """
    if not text.strip():
        return []
    try:
        (names,) = csv.reader([text.replace("\n", " ")], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise DatasetError(
            f"The names {text} can't be told apart ({error}). Separate names by commas, and put one that "
            'holds a comma in double quotes: building,"roof, flat"'
        ) from error
    return [plain(name) for name in names]


def join_names(names: Iterable[str]) -> str:
    """Names as `split_names` reads them."""
    return ",".join(
        '"' + name.replace('"', '""') + '"' if "," in name or name.startswith('"') else name for name in names
    )


def path_key(text: str | PurePath) -> str:
    """What a path that a label file names, and the path of the file that it means, have in common.

    Slashes for backslashes, %20 and the like as the characters that they stand for, normal form C.
    """
    return posixpath.normpath(plain(unquote(str(text).replace("\\", "/"))))


def words(text: str) -> set[str]:
    """The words of a file name, in small letters: {"instances", "val"} for `instances_val2017`."""
    return {word.lower() for part in _LETTERS.findall(plain(text)) for word in _NEW_WORD.split(part)}


def check_encoding(path: str | PurePath) -> None:
    """Raise DatasetError where a file name isn't UTF-8, as those of old archives may be: libraries that read
    files don't find it.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise DatasetError(
            f"The name of the file {printable(path)} isn't UTF-8 text, so it can't be opened. Rename it, "
            "e.g. with convmv."
        ) from None


def printable(path: str | PurePath) -> str:
    """A path for a message, bytes that aren't UTF-8 as \\xNN."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")
