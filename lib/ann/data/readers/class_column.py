"""Which column of an attribute table holds the class, and the class of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ann.data.dataset import name_some
from ann.data.text import plain
from ann.errors import DatasetError

OBVIOUS_COLUMNS = ("class", "label", "category", "class_name")


def class_names(
    source: str,
    fields: Mapping[str, Sequence[object]],
    count: int,
    classes: Sequence[str],
    class_column: str | None,
) -> tuple[np.ndarray, list[str]]:
    """Class name of each of `count` polygons, (count,) object, "" where the column is empty; and notes.

    source: file or map, for messages; fields: columns by name, `count` values each.
    class_column: the column; None: one called `class` or `label`, else the only column with values from
    `classes`. With a single class and no such column every polygon is of that class.

    Raises:
        DatasetError: there is no such column, or it isn't clear which one it is.
    """
    texts = {
        name: np.array([as_text(value) for value in values], dtype=object) for name, values in fields.items()
    }
    column = class_column
    if column is None:
        obvious = [name for name in texts if name.lower() in OBVIOUS_COLUMNS]
        matching = [name for name, values in texts.items() if set(values) & set(classes)]
        choices = [name for name in obvious if name in matching] or obvious or matching
        if not choices and len(classes) == 1:
            note = f"All polygons of {source} count as {classes[0]!r}: no column holds a class."
            return np.full(count, classes[0], dtype=object), [note]
        if len(choices) != 1:
            samples = "; ".join(
                f"{name} ({name_some(sorted(set(values)))})" for name, values in texts.items()
            )
            raise DatasetError(
                f"It isn't clear which column of {source} holds the classes {', '.join(classes)}. Name it "
                f"with class_column=; there are {samples or 'no columns'}."
            )
        column = choices[0]
    if column not in texts:
        raise DatasetError(f"{source} has no column {column!r}; there are {', '.join(texts) or 'none'}.")
    return texts[column], []


def as_text(value: object) -> str:
    """A value of a table as the name of a class; "" for none, whole numbers without a point."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return plain(value)
