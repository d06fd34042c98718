"""Which labels are objects: those that show on a pixel of their image, each of them once.

What no pixel shows can't be learnt, so it must not be counted either, nor decide on anchors or on whether a
class occurs. What is labelled twice, in two label maps or twice in a file, would be trained twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ann.data.dataset import LabelledImage, count_instances, name_some
from ann.data.outlines.shapes import Shape, drawn_digest
from ann.data.pixels.windows import Window
from ann.errors import DatasetError

NEAR_SHARE = 0.25  # a roof under a tree falls into parts that are nearer than that, two buildings don't


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """What a dataset says of one object on one image.

    class_id: negative for a region that training ignores; place: what a person finds it by, for messages.
    """

    shape: Shape
    class_id: int
    place: str


@dataclass(eq=False)
class Sieve:
    """Tells the objects of a dataset from labels that are none, image by image, and remembers why.

    A label may lie on several images; it counts as ignored when none of them shows it.
    """

    drawn: set[str] = field(default_factory=set)
    outside: dict[str, None] = field(default_factory=dict)
    too_small: dict[str, None] = field(default_factory=dict)
    repeated: dict[str, None] = field(default_factory=dict)

    def keep(self, labels: Iterable[Label], frame: Window, ground: Shape | None = None) -> list[Label]:
        """The labels of an image that show on a pixel of it (and of `ground`), the first of those alike.

        Labels are alike that show on the same pixels and are of one class. Each is drawn once. That a label
        doesn't lie on `ground`, which somebody chose, is no fault.
        """
        kept: dict[tuple[int, bytes], Label] = {}
        for label in labels:
            digest = drawn_digest(label.shape, frame, ground)
            if digest is None:
                if ground is None:
                    self._remember(label, frame)
                continue
            self.drawn.add(label.place)
            if kept.setdefault((label.class_id, digest), label) is not label:
                self.repeated[label.place] = None
        return list(kept.values())

    def _remember(self, label: Label, frame: Window) -> None:
        y1, x1, y2, x2 = label.shape.box
        inside = y1 >= 0 and x1 >= 0 and y2 <= frame.height and x2 <= frame.width
        (self.too_small if inside else self.outside)[label.place] = None

    def notes(self) -> list[str]:
        """What a person should know of the labels that are no objects."""
        notes = []
        small = [place for place in self.too_small if place not in self.drawn]
        outside = [place for place in self.outside if place not in self.drawn and place not in self.too_small]
        for places, reason in (
            (outside, "lie outside of the image and were ignored"),
            (small, "were ignored: no pixel has its centre in them, most often because they are too small"),
            (list(self.repeated), "were left out: the same object is labelled more than once"),
        ):
            if places:
                notes.append(f"{len(places)} label(s) {reason}: {name_some(places)}.")
        return notes


def check_drawn(
    images: Sequence[LabelledImage], classes: Sequence[str], notes: Sequence[str], what: str
) -> None:
    """Raise DatasetError where a class has no object on any image. notes: why labels were ignored."""
    counts = count_instances(images, len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if missing:
        reasons = "".join(f" {note}" for note in notes)
        raise DatasetError(
            f"No instance of {', '.join(map(repr, missing))} among the {what}.{reasons} Correct these "
            "labels, or leave the class out of classes=."
        )


def far_apart(boxes: Sequence[Sequence[float]]) -> bool:
    """Whether parts of one object, boxes (N, 4), (x1, y1, x2, y2) in any unit, are rather several objects.

    They are unless every part can be reached from every other over gaps of at most `NEAR_SHARE` of the mean
    sides (roots of the areas) of both boxes at the gap, added.
    """
    if len(boxes) < 2:
        return False
    x1, y1, x2, y2 = np.asarray(boxes, dtype=float).T
    reach = NEAR_SHARE * np.sqrt((x2 - x1) * (y2 - y1))
    grown = shapely.box(x1 - reach, y1 - reach, x2 + reach, y2 + reach)
    ones, others = shapely.STRtree(grown).query(grown)
    links = coo_array((np.ones(len(ones)), (ones, others)), shape=(len(grown), len(grown)))
    return connected_components(links, directed=False)[0] > 1


def far_apart_note(source: str, parts: str, names: Sequence[str], way_out: str) -> str:
    """A note on objects of several parts that lie far apart. names: of the objects, at least one."""
    return (
        f"{source} has {parts} far apart that are one object, each time taken for one: {name_some(names)}. "
        f"If they are several objects, {way_out}."
    )
