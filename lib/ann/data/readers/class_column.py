"""The class of each labelled object: which column of an attribute table says it, and what its values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.dataset import NAMED_FILES, name_some
from ann.data.text import plain
from ann.errors import DatasetError

OBVIOUS_COLUMNS = ("class", "label", "category", "class_name")
EVERY_OTHER = "*"  # stands for all values that aren't named


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeTable:
    """The attributes of `count` objects. source: file or map, for messages; columns: `count` values each."""

    source: str
    columns: Mapping[str, Sequence[object]]
    count: int


@dataclass(frozen=True)
class ClassValues:
    """Which class a value means; values that aren't named mean the class of their name.

    by_value: class names by value, `EVERY_OTHER` for all values that are neither named nor a class, and
    for none.
    """

    by_value: Mapping[str, str]

    @classmethod
    def parse(cls, pairs: Sequence[str], classes: Sequence[str]) -> ClassValues:
        """From texts `value:class`; the class is what follows the last colon.

        Raises:
            DatasetError: a text without a value or colon, a class that isn't in `classes`, a value of two
                classes.
        """
        by_value: dict[str, str] = {}
        for pair in pairs:
            value, colon, name = (plain(part) for part in pair.rpartition(":"))
            if not (value and colon and name):
                raise DatasetError(
                    f"class_values={pair} doesn't say which class a value means. Give value:class, separated "
                    f"by commas, e.g. class_values=house:{classes[0]},{EVERY_OTHER}:{classes[0]}, where "
                    f"{EVERY_OTHER} stands for all other values."
                )
            if name not in classes:
                raise DatasetError(
                    f"class_values={pair} names the class {name!r}, which is not in "
                    f"classes={','.join(classes)}. Add it there, or correct it."
                )
            if by_value.setdefault(value, name) != name:
                raise DatasetError(
                    f"class_values= gives {value!r} two classes, {by_value[value]!r} and {name!r}. Give one."
                )
        return cls(by_value)

    @property
    def named(self) -> set[str]:
        """The values that are named."""
        return set(self.by_value) - {EVERY_OTHER}

    def class_of(self, value: str, classes: Sequence[str]) -> str:
        """The class that a value means; the value itself where nothing is said of it."""
        if value in self.by_value and value != EVERY_OTHER:
            return self.by_value[value]
        return value if value in classes else self.by_value.get(EVERY_OTHER, value)


AS_THEY_ARE = ClassValues({})


def class_names(
    tables: Sequence[AttributeTable],
    classes: Sequence[str],
    class_column: str | None = None,
    class_values: ClassValues = AS_THEY_ARE,
) -> tuple[list[np.ndarray], list[str]]:
    """Class name of each object of each table, (count,) object, "" where the column is empty; and notes.

    class_column: the column; None: one that holds a name of `classes` or a value of `class_values`, among
    several one called `class`, `label` or the like. Where no table has such a column, all objects are
    of the only class, or of that which `class_values` gives every other value.

    Raises:
        DatasetError: there is no such column, or it isn't clear which one it is.
    """
    texts = [
        {
            name: np.array([as_text(value) for value in values], dtype=object)
            for name, values in table.columns.items()
        }
        for table in tables
    ]
    wanted = set(classes) | class_values.named
    if class_column:
        columns: list[str | None] = [class_column] * len(tables)
    else:
        columns = [_matching(table, fields, wanted) for table, fields in zip(tables, texts, strict=True)]
    used = {column for column in columns if column}
    only = class_values.by_value.get(EVERY_OTHER) or (classes[0] if len(classes) == 1 else None)
    found, notes = [], []
    for table, fields, column in zip(tables, texts, columns, strict=True):
        if column is None:
            column = _fallback(fields, used, obvious=only is None)
        if column is not None and column not in fields:
            raise DatasetError(
                f"{table.source} has no column {column!r}; there are {', '.join(fields) or 'none'}."
            )
        if column is None and only is None and table.count:
            raise _unclear(table.source, fields, wanted)
        if column is None:
            found.append(np.full(table.count, only, dtype=object))
            if table.count:
                notes.append(_only_class_note(table.source, only, fields))
            continue
        meant = {value: class_values.class_of(value, classes) for value in set(fields[column])}
        found.append(np.array([meant[value] for value in fields[column]], dtype=object))
    return found, notes


def _matching(table: AttributeTable, fields: Mapping[str, np.ndarray], wanted: set[str]) -> str | None:
    """The column that holds wanted values; None where there is none.

    Raises:
        DatasetError: there are several.
    """
    matching = {name: values for name, values in fields.items() if not wanted.isdisjoint(values)}
    obvious = [name for name in matching if name.lower() in OBVIOUS_COLUMNS]
    exact = [name for name, values in matching.items() if set(values) <= wanted | {""}]
    choices = obvious or exact or list(matching)
    if any((matching[name] != matching[choices[0]]).any() for name in choices):
        raise _unclear(table.source, fields, wanted)
    return choices[0] if choices else None


def _fallback(fields: Mapping[str, np.ndarray], used: set[str], *, obvious: bool) -> str | None:
    """The column of a table without wanted values: that of the other tables, or one with an obvious name."""
    choices = [name for name in fields if name in used]
    if not choices and obvious:
        choices = [name for name in fields if name.lower() in OBVIOUS_COLUMNS]
    return choices[0] if len(choices) == 1 else None


def _unclear(source: str, fields: Mapping[str, np.ndarray], wanted: set[str]) -> DatasetError:
    return DatasetError(
        f"It isn't clear which column of {source} holds the classes {', '.join(sorted(wanted))}. Name it "
        "with class_column=, and where it holds other values, say with class_values=value:class what they "
        f"mean; there are {_samples(fields) or 'no columns'}."
    )


def _only_class_note(source: str, name: str, fields: Mapping[str, np.ndarray]) -> str:
    samples = _samples(fields)
    return f"All labels of {source} count as {name!r}: no column holds a class{samples and f' ({samples})'}."


def _samples(fields: Mapping[str, np.ndarray]) -> str:
    """Some values of each column that has any, for a message."""
    values = {name: sorted(set(texts) - {""}) for name, texts in fields.items()}
    listed = [f"{name} ({name_some(found)})" for name, found in values.items() if found]
    return "; ".join(listed[:NAMED_FILES]) + ("; ..." if len(listed) > NAMED_FILES else "")


def as_text(value: object) -> str:
    """A value of a table as the name of a class; "" for none, whole numbers without a point."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return plain(value)
