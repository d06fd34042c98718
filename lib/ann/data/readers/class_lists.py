"""A table that names images and the class of each: a CSV file with a column for either.

    image,class,flight
    photos/DJI_0001.JPG,roof_damaged,may

Paths are those from the folder of the table on, or absolute ones. A column called flight, scene, group or
source says what is never divided.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ann.data.dataset import check_classes, check_labels, name_some
from ann.data.readers.class_column import OBVIOUS_COLUMNS
from ann.data.readers.image_classes import ClassFile
from ann.data.text import path_key, plain
from ann.errors import DatasetError

IMAGE_COLUMNS = ("image", "file", "filename", "path", "name", "photo")
SCENE_COLUMNS = ("flight", "scene", "group", "source")
DELIMITERS = ",;\t|"


def is_class_list(path: str | Path) -> bool:
    """Whether a training dataset is such a table."""
    return Path(path).suffix.lower() in (".csv", ".tsv", ".txt") and Path(path).is_file()


def read_class_list(
    path: str | Path, classes: Sequence[str], class_column: str | None = None
) -> tuple[tuple[str, ...], list[ClassFile]]:
    """The classes, and the images in the order of the table.

    classes: in the order of their ids; none: all that occur, sorted. class_column: its name; None: class,
    label or the like, or the second one.

    Raises:
        DatasetError: no such columns, a row without image or class, an image that isn't there or stands in
            two rows, a class that isn't in `classes` or has no image.
    """
    rows = _read(Path(path))
    columns = list(rows[0])
    image_column = _find(columns, IMAGE_COLUMNS) or columns[0]
    named = class_column or _find([one for one in columns if one != image_column], OBVIOUS_COLUMNS)
    if named is None and len(columns) > 1:
        named = columns[1]
    if named not in columns:
        raise DatasetError(
            f"{path} has no column {named or 'for the classes'!r}; there are {', '.join(columns)}. "
            "Expected the columns image and class, or name that of the classes with class_column="
        )
    scene_column = _find(columns, SCENE_COLUMNS)
    places: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 2):
        if not plain(row[image_column] or "") or not plain(row[named] or ""):
            raise DatasetError(
                f"Line {number} of {path} lacks the image or its class. Fill it in or delete it"
            )
        places.setdefault(plain(row[named]), []).append(row[image_column])
    names = check_classes(classes or tuple(sorted(places)))
    check_labels(places, names, "Images of a class")
    files = [
        ClassFile(
            path=_existing(Path(path), row[image_column]),
            name=plain(row[image_column]),
            class_id=names.index(plain(row[named])) + 1,
            source=f"{path}: {plain(row[scene_column])}" if scene_column and row[scene_column] else None,
        )
        for row in rows
    ]
    _check_twice(path, files)
    return names, files


def _read(path: Path) -> list[Mapping[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(DELIMITERS, key=text.split("\n")[0].count)
        rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} can't be read as a table ({error}). Expected CSV in UTF-8 with the columns image and "
            f"class"
        ) from error
    if not rows:
        raise DatasetError(
            f"{path} has no rows. Expected a line with the names of columns, and one for each image"
        )
    return rows


def _find(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((one for name in wanted for one in columns if plain(one).lower() == name), None)


def _existing(table: Path, name: str) -> Path:
    """The file that a table names.

    Raises:
        DatasetError: there is none.
    """
    for text in (plain(name), path_key(name)):
        path = table.parent / text
        if path.is_file():
            return path
    raise DatasetError(
        f"{table} names the image {name}, which is not there. Paths are those from "
        f"{table.absolute().parent} on"
    )


def _check_twice(table: str | Path, files: Sequence[ClassFile]) -> None:
    seen: dict[Path, ClassFile] = {}
    twice = [file.name for file in files if seen.setdefault(file.path.resolve(), file) is not file]
    if twice:
        raise DatasetError(f"{table} names images more than once: {name_some(twice)}. Keep one line for each")
