"""What the values of a label raster mean: class numbers, 0 and 255, or colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.dataset import name_some
from ann.data.outlines.class_raster import UNKNOWN
from ann.errors import DatasetError

_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")
NO_CLASS = UNKNOWN - 1  # of a value that means nothing


@dataclass(frozen=True, kw_only=True)
class LabelValues:
    """Values and the class ids they mean; all are colours 0xRRGGBB, or none is.

    ids: by value; 0 is the background, UNKNOWN is left out of losses and scores. Without any, values are
    class ids themselves; 255 is the class, too, where there is one only.
    """

    ids: Mapping[int, int]
    colours: bool = False
    unknown: frozenset[int] = frozenset()  # values without a meaning, where `ids` is empty

    def class_raster(self, values: np.ndarray, class_count: int, where: str) -> np.ndarray:
        """The class ids (H, W) int16 of a label raster: values (H, W) of any whole type, or colours packed.

        Raises:
            DatasetError: a value that no class has; `where` names the raster.
        """
        found = np.unique(values)
        ids = self.ids or self._numbers(class_count)
        table = np.array([ids.get(int(value), NO_CLASS) for value in found], dtype=np.int16)
        strange = found[table == NO_CLASS]
        if len(strange):
            known = ", ".join(self._name(value) for value in list(ids)[:20])
            shown = name_some([self._name(value) for value in strange])
            raise DatasetError(
                f"Label raster {where} has values that mean no class: {shown}; expected {known}. Say what "
                "they mean with class_values=value:class,..., or leave cells of a value out with ignore=value"
            )
        return table[np.searchsorted(found, values)]

    def _numbers(self, class_count: int) -> dict[int, int]:
        """Values as class ids; with one class 255 is the class, too."""
        ids = {number: number for number in range(class_count + 1)} | dict.fromkeys(self.unknown, UNKNOWN)
        if class_count == 1 and 255 not in self.unknown:
            ids[255] = 1
        return ids

    def _name(self, value: int) -> str:
        return f"#{int(value):06X}" if self.colours else str(int(value))


def parse_label_values(
    meanings: Mapping[str, str], ignore: Sequence[str], classes: Sequence[str]
) -> LabelValues:
    """What a user said of the values: {value: class name}, and values that are to be left out.

    A value is a whole number or a colour as #RRGGBB; the class name may be empty for the background.

    Raises:
        DatasetError: no such value or class, numbers and colours mixed, or a class without a value.
    """
    values = {text: _parse(text) for text in (*meanings, *ignore)}
    colours = {text.startswith("#") for text in values}
    if len(colours) > 1:
        raise DatasetError(
            f"Values of labels are colours or numbers, received both: {', '.join(values)}. Use one of the two"
        )
    unknown = frozenset(values[text] for text in ignore)
    if not meanings:
        if True in colours:
            raise DatasetError("Colours to ignore need class_values=, which says what the other colours mean")
        return LabelValues(ids={}, unknown=unknown)
    ids = {} if True in colours else {0: 0}
    for text, name in meanings.items():
        if name and name not in classes:
            raise DatasetError(
                f"class_values= gives {text} the class {name}, which is not in classes={','.join(classes)}"
            )
        ids[values[text]] = classes.index(name) + 1 if name else 0
    missing = [name for number, name in enumerate(classes, 1) if number not in ids.values()]
    if missing:
        raise DatasetError(
            f"class_values= gives no value for {', '.join(missing)}. Name one, or leave the class out"
        )
    return LabelValues(ids=ids | dict.fromkeys(unknown, UNKNOWN), colours=True in colours)


def _parse(text: str) -> int:
    if match := _COLOUR.fullmatch(text):
        return int(match[1], 16)
    try:
        return int(text)
    except ValueError:
        raise DatasetError(
            f"Expected a whole number or a colour as #RRGGBB for a label, received {text!r}"
        ) from None


def pack_colours(bands: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3 or more) uint8 as whole numbers 0xRRGGBB, (H, W) int32."""
    red, green, blue = (bands[..., band].astype(np.int32) for band in range(3))
    return (red << 16) | (green << 8) | blue
