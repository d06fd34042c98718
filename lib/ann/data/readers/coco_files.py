"""The COCO files of a directory, which part of the data each is, and the images that they name."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ann.data.dataset import name_some
from ann.data.folders import files_with_suffix, is_hidden
from ann.data.text import path_key, words
from ann.errors import DatasetError

TABLES = ("images", "annotations", "categories")
PARTS = {
    "val": "val",
    "valid": "val",
    "validation": "val",
    "minival": "val",
    "test": "test",
    "testing": "test",
}  # the words of a file name that say which part of the data it is; without one it is for training


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFile:
    """A parsed COCO file; part: "train", "val" or "test"."""

    path: Path
    content: dict[str, Any]
    part: str = "train"


def part_of(file: Path, root: Path) -> str:
    """Which part of the data a COCO file is: by a whole word of its name, or of its folder's below `root`."""
    for name in (file.stem, *([file.parent.name] if file.parent != root else [])):
        found = words(name)
        if "train" in found:
            return "train"
        for word, part in PARTS.items():
            if word in found:
                return part
    return "train"


def find_coco(path: str | Path) -> tuple[tuple[CocoFile, ...], tuple[str, ...]]:
    """The COCO files at a path, and notes on other JSON files there.

    path: such a file; or a directory that holds some, itself or in its folders `annotations`, `train`, `val`,
    `test` and the like.

    Raises:
        DatasetError: the path is a JSON file that can't be read.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() != ".json":
            return (), ()
        content = _parse(path)
        return ((CocoFile(path=path, content=content),) if _has_images(content) else ()), ()
    found, other = [], []
    for candidate in _json_files(path):
        try:
            content = _parse(candidate)
        except DatasetError as error:
            other.append(str(error))
            continue
        if _has_images(content) and all(isinstance(content.get(table), list) for table in TABLES):
            found.append(CocoFile(path=candidate, content=content, part=part_of(candidate, path)))
        else:
            entries = content if isinstance(content, dict) else {}
            lacking = [table for table in TABLES if not isinstance(entries.get(table), list)]
            other.append(f"{candidate} is no complete COCO file (without a list of {', '.join(lacking)})")
    if not other:
        return tuple(found), ()
    return tuple(found), (f"{len(other)} JSON file(s) were left out: {name_some(other)}.",)


def _json_files(path: Path) -> list[Path]:
    """The JSON files of a directory and of those of its folders in which COCO files are kept."""
    folders = [path]
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        known = words(entry.name) & {"annotations", "train", *PARTS}
        if known and not is_hidden(entry.name) and entry.is_dir():
            folders.append(path / entry.name)
    found = []
    for folder in folders:
        names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
        found += [file for file in files_with_suffix(folder, names, (".json",)) if file.is_file()]
    return sorted(found)


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} can't be read as JSON ({error}). Write it again.") from error


def _has_images(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("images"), list)


class NamedFiles:
    """Finds the files that a label file names, whatever way their names are written.

    A directory is listed once, however many files are looked for in it.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = tuple(dict.fromkeys(folders))
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path | None:
        """The file of this name in the first folder that has it; None where none has."""
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        for folder in self._folders:
            path = folder
            for part in path_key(name).split("/"):
                path = path / (part if part == ".." else self._names(path).get(part, part))
            if path.is_file():
                return path
        return None

    def _names(self, folder: Path) -> dict[str, str]:
        """The names in a folder by what they have in common with other ways to write them."""
        if folder not in self._listings:
            names = os.listdir(folder) if folder.is_dir() else []
            self._listings[folder] = {path_key(name): name for name in sorted(names)}
        return self._listings[folder]
