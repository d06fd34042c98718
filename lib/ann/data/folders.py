"""Which files lie below a directory: links to directories are followed, what is hidden is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ann.data.text import check_encoding

# Of archives made on macOS, network storage and Windows; those of Linux begin with a dot.
SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")


def walk(path: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each directory at or below a path with the names of its files, both in the order of their names.

    Hidden files and directories, and those in which systems keep thumbnails and deleted files, are left out
    (not the path itself). A directory that is reached by several links is visited once.
    """
    root = os.path.realpath(path)
    seen = {root}
    for directory, subdirectories, names in os.walk(path, followlinks=True):
        subdirectories[:] = [
            name
            for name in sorted(subdirectories)
            if not is_hidden(name) and _is_new(os.path.join(directory, name), root, seen)
        ]
        yield Path(directory), sorted(name for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or directory is none that people see or mean."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def find_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All files below a directory whose suffix is one of these (lower case), sorted.

    Raises:
        DatasetError: the name of such a file isn't UTF-8.
    """
    return sorted(
        file for directory, names in walk(path) for file in files_with_suffix(directory, names, suffixes)
    )


def files_with_suffix(directory: Path, names: list[str], suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a directory whose suffix is one of these (lower case), in the order of `names`.

    Raises:
        DatasetError: the name of such a file isn't UTF-8.
    """
    found = [directory / name for name in names if os.path.splitext(name)[1].lower() in suffixes]
    for file in found:
        check_encoding(file)
    return found


def _is_new(directory: str, root: str, seen: set[str]) -> bool:
    """Whether a directory is to be visited: not yet seen, and no link to one that holds the root."""
    real = os.path.realpath(directory)
    if real in seen or root.startswith(os.path.join(real, "")):
        return False
    seen.add(real)
    return True
