"""What labels are kept as until a window of them is drawn: polygons, or masks in compressed form.

A shape has a `box` (y1, x1, y2, x2), pixels of its image, ends exclusive, and gives its part inside of a
window as a mask. Memory is that of the outline or of the compressed bits, whatever the image's size.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ann.data.outlines.masks import CroppedMask, crop_mask, intersect_window, paste
from ann.data.outlines.polygon_fill import fill_polygon
from ann.data.outlines.rle import mask_from_runs
from ann.data.pixels.windows import Window

STRIP_PIXELS = 1 << 20


class Shape(Protocol):
    """The outline of one instance in its image."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(y1, x1, y2, x2), pixels, ends exclusive; may be a pixel too wide and reach out of the image."""

    @property
    def area(self) -> float:
        """Pixels inside, also of what lies outside of the image."""

    def inside(self, window: Window) -> CroppedMask | None:
        """The part inside of a window, in pixels of the window; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class PackedMask:
    """A mask as compressed bits.

    box: (y1, x1, y2, x2), pixels of the image; area: pixels; bits: its pixels, row by row, as made by `pack`.
    """

    box: tuple[int, int, int, int]
    area: int
    bits: bytes

    @classmethod
    def pack(cls, mask: CroppedMask) -> PackedMask:
        """Compress a mask."""
        return cls(box=mask.box, area=mask.area, bits=zlib.compress(np.packbits(mask.pixels).tobytes(), 1))

    def unpack(self) -> CroppedMask:
        """The mask that was packed."""
        y1, x1, y2, x2 = self.box
        bits = np.frombuffer(zlib.decompress(self.bits), dtype=np.uint8)
        pixels = np.unpackbits(bits, count=(y2 - y1) * (x2 - x1)).astype(bool)
        return CroppedMask(row=y1, column=x1, pixels=pixels.reshape(y2 - y1, x2 - x1))

    def inside(self, window: Window) -> CroppedMask | None:
        """The part inside of a window, in pixels of the window; None where there is none."""
        return intersect_window(self.unpack(), window) if _meet(self.box, window) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class RunMask:
    """The part of an instance inside of its image as run lengths (see `rle`), drawn when it is asked for.

    box, area: of the whole instance, also of what lies outside of the image; runs: (n,) int, of an image of
    `height` x `width` pixels.
    """

    box: tuple[int, int, int, int]
    area: float
    runs: np.ndarray
    height: int
    width: int

    def inside(self, window: Window) -> CroppedMask | None:
        """The part inside of a window, in pixels of the window; None where there is none."""
        if not _meet(self.box, window):
            return None
        mask = mask_from_runs(self.runs, self.height, self.width)
        return None if mask is None else intersect_window(mask, window)


@dataclass(frozen=True, kw_only=True, eq=False)
class Polygons:
    """One or several polygons that are one instance.

    parts: for each polygon its rings, the outer one first, then the holes: (n, 2) float64, (x, y) in
    pixels of the image, where (0, 0) is the upper left corner of the first pixel. A pixel is inside when
    its centre is.
    """

    box: tuple[int, int, int, int]
    area: float
    parts: tuple[tuple[np.ndarray, ...], ...]

    @classmethod
    def from_parts(cls, parts: tuple[tuple[np.ndarray, ...], ...]) -> Polygons:
        """Polygons with their box, which may reach out of the image, and their area."""
        points = np.concatenate([rings[0] for rings in parts])
        x1, y1 = np.floor(points.min(axis=0)).astype(int).tolist()
        x2, y2 = np.ceil(points.max(axis=0)).astype(int).tolist()
        area = sum(_ring_area(part[0]) - sum(_ring_area(hole) for hole in part[1:]) for part in parts)
        return cls(box=(y1, x1, y2, x2), area=area, parts=parts)

    def inside(self, window: Window) -> CroppedMask | None:
        """The part inside of a window, in pixels of the window; None where there is none."""
        if not _meet(self.box, window):
            return None
        y1, x1 = max(self.box[0], window.row), max(self.box[1], window.column)
        y2 = min(self.box[2], window.row + window.height)
        x2 = min(self.box[3], window.column + window.width)
        part = Window(row=y1, column=x1, height=y2 - y1, width=x2 - x1)
        drawn = fill_polygon(self.parts[0], part)
        for rings in self.parts[1:]:
            drawn |= fill_polygon(rings, part)
        return crop_mask(drawn, y1 - window.row, x1 - window.column)


def covers_pixel(shape: Shape, window: Window, within: Shape | None = None) -> bool:
    """Whether a pixel of a window lies inside of a shape (and of `within`).

    The first strip (see `_drawn_strips`) that shows a pixel is the last that is drawn.
    """
    return any(True for _ in _drawn_strips(shape, window, within))


def drawn_digest(shape: Shape, window: Window, within: Shape | None = None) -> bytes | None:
    """16 bytes that stand for the pixels of a window inside of a shape (and of `within`); None for none.

    The same for all shapes that cover the same pixels, however their outlines are written.
    """
    digest = hashlib.blake2b(digest_size=16)
    empty = True
    for row, column, pixels in _drawn_strips(shape, window, within):
        edges = np.flatnonzero(np.diff(np.pad(pixels, ((0, 0), (1, 1))).astype(np.int8), axis=1))
        rows, columns = np.divmod(edges, pixels.shape[1] + 1)
        digest.update(((rows + row) * (window.width + 1) + columns + column).tobytes())
        empty = False
    return None if empty else digest.digest()


def _drawn_strips(
    shape: Shape, window: Window, within: Shape | None
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(row, column, pixels (h, w) bool) of strips of a shape that show a pixel; row and column in the window.

    Outlines are drawn in strips of 2 ** 20 pixels. A mask is unpacked as a whole in any case.
    """
    y1, x1 = max(shape.box[0], window.row), max(shape.box[1], window.column)
    y2, x2 = min(shape.box[2], window.row + window.height), min(shape.box[3], window.column + window.width)
    if y1 >= y2 or x1 >= x2:
        return
    rows = max(1, STRIP_PIXELS // (x2 - x1)) if isinstance(shape, Polygons) else y2 - y1
    for row in range(y1, y2, rows):
        strip = Window(row=row, column=x1, height=min(rows, y2 - row), width=x2 - x1)
        drawn = shape.inside(strip)
        if drawn is not None and within is not None:
            ground = within.inside(strip)
            size = strip.height, strip.width
            drawn = None if ground is None else crop_mask(paste(drawn, *size) & paste(ground, *size))
        if drawn is not None:
            yield row + drawn.row - window.row, x1 + drawn.column - window.column, drawn.pixels


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]))) / 2  # the edge to (0, 0) adds nothing


def _meet(box: tuple[int, int, int, int], window: Window) -> bool:
    y1, x1, y2, x2 = window.box
    return max(box[0], y1) < min(box[2], y2) and max(box[1], x1) < min(box[3], x2)
