"""A set of labelled images, described without its pixels in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from ann.data.example import Example
from ann.data.pixels.windows import Window, whole
from ann.data.text import join_names, plain
from ann.errors import DatasetError

if TYPE_CHECKING:
    from ann.data.pixels.rasters import ImageHeader

# what is labelled, see `Dataset.labels`
OBJECT_LABELS, CELL_LABELS, IMAGE_LABELS = "objects", "cells", "images"
NAMED_FILES = 5  # an error names that many files and the number of the others


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image lies. frame: the name of what coordinates refer to, e.g. a coordinate system; images of
    other frames can't be compared. transform: from pixels (column, row) to it.
    """

    frame: str
    transform: Affine

    def moved(self, window: Window) -> Place:
        """The place of a window."""
        a, b, c, d, e, f = self.transform[:6]
        x, y = a * window.column + b * window.row + c, d * window.column + e * window.row + f
        return replace(self, transform=Affine(a, b, x, d, e, y))


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """One image and what is known of it before it is read.

    instance_counts: instances of each class, in the order of the dataset's classes; regions left out.
    boxes: (N, 4) int32 boxes of all instances and regions, (y1, x1, y2, x2), pixels, or a pixel wider.
    class_ids: (N,) int32, negative for a region that training ignores.
    source: the scene; parts of one scene never stand on both sides of a split.
    pixel_size: metres per pixel on the ground, None for an image that isn't georeferenced.
    extent: (west, south, east, north) in map units, where it is known.
    place: where the pixels lie, for a split by ground; None: not known.
    band_labels: what the bands mean, see `data.band_labels`.
    read: gives the window, or the whole image for None, as an `Example` in pixels of the window.
    """

    name: str
    path: str
    height: int
    width: int
    bands: int
    dtype: str
    instance_counts: tuple[int, ...]
    boxes: np.ndarray
    class_ids: np.ndarray
    source: str
    pixel_size: float | None
    read: Callable[[Window | None], Example]
    extent: tuple[float, float, float, float] | None = None
    place: Place | None = None
    band_labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images with their classes; class id 1 is the first class.

    labels: what is labelled, objects, cells or images as a whole; counts of instances are those of these.
    validation: images that the data itself sets apart for validation, empty where it does not.
    notes: what a person should know, e.g. labels that were left out and why.
    band_statistics: mean and standard deviation of each band, where the data knows them.
    """

    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    labels: str = OBJECT_LABELS
    validation: tuple[LabelledImage, ...] = ()
    notes: tuple[str, ...] = field(default=())
    band_statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def counted(self) -> str:
        """What `instance_counts` are numbers of, for people."""
        return "instances" if self.labels == OBJECT_LABELS else f"labelled {self.labels}"

    @property
    def instance_counts(self) -> tuple[int, ...]:
        """Instances of each class in `images` and `validation`."""
        return count_instances((*self.images, *self.validation), len(self.classes))


def count_instances(images: Sequence[LabelledImage], class_count: int) -> tuple[int, ...]:
    """Instances of each class over several images."""
    totals = np.zeros(class_count, dtype=np.int64)
    for image in images:
        totals += image.instance_counts
    return tuple(int(total) for total in totals)


def count_class_ids(class_ids: np.ndarray, class_count: int) -> tuple[int, ...]:
    """Instances of each class among class ids (N,); 0 and negative ids aren't counted."""
    counts = np.bincount(class_ids[class_ids > 0], minlength=class_count + 1)
    return tuple(int(count) for count in counts[1 : class_count + 1])


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowReader:
    """Reads parts of a window of an image; `window` is in pixels of what `read` reads."""

    read: Callable[[Window | None], Example]
    window: Window

    def __call__(self, window: Window | None = None) -> Example:
        part = window or whole(self.window.height, self.window.width)
        return self.read(
            replace(part, row=part.row + self.window.row, column=part.column + self.window.column)
        )


def part_of_image(image: LabelledImage, window: Window) -> LabelledImage:
    """A window of an image as a labelled image of its own; objects at its border are cut there."""
    top_left, limit = (window.row, window.column) * 2, (window.height, window.width) * 2
    boxes = np.clip(image.boxes - np.array(top_left, np.int32), 0, np.array(limit, np.int32))
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    class_ids = image.class_ids[inside]
    count = len(image.instance_counts)
    shares = zip(
        image.instance_counts,
        count_class_ids(class_ids, count),
        count_class_ids(image.class_ids, count),
        strict=True,
    )
    y1, x1, y2, x2 = window.box
    return replace(
        image,
        name=f"{image.name}[{y1}:{y2},{x1}:{x2}]",
        height=window.height,
        width=window.width,
        # of cells, which class_ids know by blocks, about the share of the blocks
        instance_counts=tuple(round(counted * part / max(whole, 1)) for counted, part, whole in shares),
        boxes=boxes[inside],
        class_ids=class_ids,
        read=WindowReader(read=image.read, window=window),
        extent=None,
        place=None if image.place is None else image.place.moved(window),
    )


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names as a tuple, each in its plain form.

    Raises:
        DatasetError: no name, an empty name, or a name given twice.
    """
    if isinstance(classes, str):
        raise DatasetError(f"Expected a list of class names, received the text {classes!r}.")
    names = tuple(plain(name) for name in classes)
    if not names or not all(names):
        raise DatasetError(
            f"Class names must not be empty, received {list(names)}. Give them as classes=name1,name2 "
            "without a comma too many."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"Class names given more than once: {', '.join(twice)}. Name each class once.")
    return names


def check_labels(
    labels: dict[str, Sequence[str]], classes: Sequence[str], what: str, *, class_values: bool = False
) -> None:
    """Compare the class names found in the data with those asked for.

    labels: for each name found, where (files or the like); what: how the data calls a class, for the message;
    class_values: whether values can be given a class, so that the message says so.

    Raises:
        DatasetError: a name that isn't among `classes`, or a class without any instance.
    """
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        found = "; ".join(f"{name!r} ({name_some(labels[name])})" for name in unknown[:NAMED_FILES])
        raise DatasetError(
            f"{what} that is not in classes={join_names(classes)}: {found}"
            f"{_others(len(unknown))}. Add it to classes= or take its labels out of the data"
            + (
                f", or say what it means with class_values={unknown[0]}:{classes[0]}."
                if class_values
                else "."
            )
            + _quoting_hint(unknown)
        )
    missing = [name for name in classes if not labels.get(name)]
    if missing:
        raise DatasetError(
            f"No instance of {', '.join(map(repr, missing))} in the data, which has "
            f"{', '.join(map(repr, sorted(labels))) or 'no labels at all'}. Check the spelling (capitals "
            f"count) or leave the class out of classes=.{_quoting_hint(labels)}"
        )


def _quoting_hint(names: Iterable[str]) -> str:
    """How a name with a comma is given, where there is one."""
    name = next((name for name in names if "," in name), None)
    return f" A name with a comma is given in double quotes: {join_names([name])}." if name else ""


def check_found(images: Sequence, path: str | Path) -> None:
    """Raise DatasetError where there is no image."""
    if not images:
        raise DatasetError(f"No images found in {path}. Expected .jpg, .png or .tif files with their labels.")


def check_bands(images: Sequence[LabelledImage | ImageHeader]) -> None:
    """Raise DatasetError where images differ in their number of bands."""
    by_bands: dict[int, list[str]] = {}
    for image in images:
        by_bands.setdefault(image.bands, []).append(image.path)
    if len(by_bands) > 1:
        listed = "; ".join(f"{bands} in {name_some(files)}" for bands, files in sorted(by_bands.items()))
        raise DatasetError(
            f"All images must have the same number of bands, found {listed}. Convert the images, or move "
            "apart what is no image (a mask is called <image>-<class>-<number>.png)."
        )


def name_some(files: Sequence[str]) -> str:
    """The first few names and the number of the others, for a message."""
    return ", ".join(str(name) for name in files[:NAMED_FILES]) + _others(len(files))


def _others(count: int) -> str:
    return f" and {count - NAMED_FILES} more" if count > NAMED_FILES else ""
