"""Where the pixels of a predicted mask lie: three rules, of which a model's variant names one.

rounded: the box has whole pixels, the mask's cells fill it (the legacy models).
grown: the mask gets a border of nothing, the box grows by it and its corners are cut to whole pixels, both of
    which belong to it (torchvision).
exact: each pixel's middle is looked up in the box as it is (detectron2).

All are bilinear between the middles of the cells, True from a probability of MASK_THRESHOLD on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

MASK_THRESHOLD = 0.5  # the networks' masks are trained for it


def place_mask(
    probabilities: np.ndarray, box: np.ndarray, rule: str, limits: tuple[int, int]
) -> tuple[np.ndarray, int, int]:
    """A predicted mask at full size, cut at the frame.

    Args:
        probabilities: (m, m) float32, over the box.
        box: (y1, x1, y2, x2) pixels, whole ones with the rule `rounded`.
        rule: rounded, grown or exact.
        limits: (height, width) of the frame that pixels are wanted of.

    Returns:
        pixels (h, w) bool, maybe without a row or column, and the row and column of the first one.
    """
    return PLACES[rule](probabilities, box, limits)


def box_mask(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """A predicted mask at the size of its box, (height, width) bool.

    Bilinear between the centres of the (m, m) cells, 0 outside of them, True from MASK_THRESHOLD on. This is
    separable: two small matrix products, so the work is that of the box and not of the tile.
    """
    rows = _interpolation(height, probabilities.shape[0])
    columns = _interpolation(width, probabilities.shape[1])
    return rows @ probabilities @ columns.T >= MASK_THRESHOLD


def _place_rounded(probabilities, box, limits):
    y1, x1, y2, x2 = (int(value) for value in box)
    if y1 >= y2 or x1 >= x2:
        return np.zeros((0, 0), bool), y1, x1
    return _cut(box_mask(probabilities, y2 - y1, x2 - x1), y1, x1, limits)


def _cut(pixels, row, column, limits):
    """The part of a mask that lies within the frame."""
    top, left = max(0, -row), max(0, -column)
    pixels = pixels[top : max(0, limits[0] - row), left : max(0, limits[1] - column)]
    return pixels, row + top, column + left


def _place_grown(probabilities, box, limits):
    cells = len(probabilities) + 2
    box = np.asarray(box, np.float32)
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32(cells / (cells - 2))
    middle = (box[2:] + box[:2]) * np.float32(0.5)
    (y1, x1), (y2, x2) = ((middle + side).astype(np.int64) for side in (-half, half))  # towards 0
    top, bottom, left, right = max(y1, 0), min(y2 + 1, limits[0]), max(x1, 0), min(x2 + 1, limits[1])
    if top >= bottom or left >= right:
        return np.zeros((0, 0), bool), int(top), int(left)
    rows = _lookup(_places(top - y1, bottom - y1, y2 - y1 + 1, cells), cells, edge=True)
    columns = _lookup(_places(left - x1, right - x1, x2 - x1 + 1, cells), cells, edge=True)
    return rows @ np.pad(probabilities, 1) @ columns.T >= MASK_THRESHOLD, int(top), int(left)


def _places(start: int, end: int, length: int, cells: int) -> np.ndarray:
    """Where the middles of the pixels from start to end, of `length`, lie among the middles of the cells."""
    return (np.arange(start, end) + 0.5) * (cells / length) - 0.5


def _place_exact(probabilities, box, limits):
    cells = len(probabilities)
    starts, weights = [], []
    for axis in (0, 1):
        low, high = float(box[axis]), float(box[axis + 2])
        start, end = max(0, int(np.floor(low)) - 1), min(limits[axis], int(np.ceil(high)) + 1)
        if start >= end or low >= high:
            return np.zeros((0, 0), bool), start, 0
        place = (np.arange(start, end) + 0.5 - low) / (high - low) * cells - 0.5
        starts.append(start)
        weights.append(_lookup(place, cells, edge=False))
    return weights[0] @ probabilities @ weights[1].T >= MASK_THRESHOLD, *starts


PLACES = {"rounded": _place_rounded, "grown": _place_grown, "exact": _place_exact}


def _lookup(place: np.ndarray, cells: int, *, edge: bool) -> np.ndarray:
    """(places, cells) float32: the weight of each cell. edge: the outer cells go on outside; else nothing
    is there.
    """
    if edge:
        place = np.clip(place, 0, cells - 1)
    lower = np.floor(place).astype(int)
    weights = np.zeros((len(place), cells), np.float32)
    rows = np.arange(len(place))
    for cell, share in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
        inside = (cell >= 0) & (cell < cells)
        weights[rows[inside], cell[inside]] += share[inside]
    return weights


@lru_cache(maxsize=1024)
def _interpolation(length: int, cells: int) -> np.ndarray:
    """(length, cells) float32: the weight of each cell at each pixel of a box of whole pixels."""
    weights = _lookup(_places(0, length, length, cells), cells, edge=False)
    weights.setflags(write=False)
    return weights
