"""Masks of single instances, kept cropped to their box: an image of many objects stays small in memory.

Boxes are (y1, x1, y2, x2), pixels of the image, y2 and x2 exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.pixels.windows import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class CroppedMask:
    """The mask of one instance, cut to its box. Tight: the first and last row and column hold a True.

    row, column: place of the crop's upper left pixel in the image; pixels: (h, w) bool.
    """

    row: int
    column: int
    pixels: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(y1, x1, y2, x2), pixels, ends exclusive."""
        height, width = self.pixels.shape
        return self.row, self.column, self.row + height, self.column + width

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return int(np.count_nonzero(self.pixels))


def crop_mask(full: np.ndarray, row: int = 0, column: int = 0) -> CroppedMask | None:
    """Cut a mask to its box; None where nothing is inside.

    full: (H, W) bool; row, column: place of its upper left pixel in the image.
    """
    full = np.asarray(full, dtype=bool)
    rows = np.flatnonzero(full.any(axis=1))
    if rows.size == 0:
        return None
    part = full[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(part.any(axis=0))
    pixels = np.ascontiguousarray(part[:, columns[0] : columns[-1] + 1])
    return CroppedMask(row=row + int(rows[0]), column=column + int(columns[0]), pixels=pixels)


def paste(mask: CroppedMask, height: int, width: int) -> np.ndarray:
    """The mask at full size, (height, width) bool; what lies outside is cut off."""
    full = np.zeros((height, width), dtype=bool)
    overlap = common_box(mask.box, (0, 0, height, width))
    if overlap is not None:
        y1, x1, y2, x2 = overlap
        full[y1:y2, x1:x2] = part_inside(mask, overlap)
    return full


def intersect_window(mask: CroppedMask, window: Window) -> CroppedMask | None:
    """The part of a mask inside of a window, in pixels of the window; None where there is none."""
    overlap = common_box(mask.box, window.box)
    if overlap is None:
        return None
    return crop_mask(part_inside(mask, overlap), overlap[0] - window.row, overlap[1] - window.column)


def part_inside(mask: CroppedMask, box: Sequence[int]) -> np.ndarray:
    """The pixels of a mask in a box that lies inside of its own, (h, w) bool, a view."""
    y1, x1, y2, x2 = box
    return mask.pixels[y1 - mask.row : y2 - mask.row, x1 - mask.column : x2 - mask.column]


def common_box(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int, int] | None:
    """The pixels that two boxes share, None without any."""
    y1, x1, y2, x2 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (y1, x1, y2, x2) if y1 < y2 and x1 < x2 else None
