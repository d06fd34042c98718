"""Which pixels lie inside of a polygon: those whose centre does, by the even-odd rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.data.pixels.windows import Window


def fill_polygon(rings: Sequence[np.ndarray], window: Window) -> np.ndarray:
    """Draw a polygon with holes into a window: (height, width) bool.

    rings: (n, 2) float, (x, y) in pixels, (0, 0) is the upper left corner of the image's first pixel;
    closed or not. A centre exactly on an edge belongs to the polygon on its right or below, so neighbours
    share no pixel. Memory is that of the window and of one number for each row that an edge crosses.
    """
    starts = np.concatenate(rings)
    ends = np.concatenate([part for ring in rings for part in (ring[1:], ring[:1])])
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    last_row = window.row + window.height
    first = np.clip(np.ceil(low - 0.5), window.row, last_row).astype(np.int64)
    counts = np.clip(np.ceil(high - 0.5), window.row, last_row).astype(np.int64) - first
    counts = np.maximum(counts, 0)
    edge = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x1, y1), (x2, y2) = starts[edge].T, ends[edge].T
    crossing = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
    columns = np.clip(np.ceil(crossing - 0.5) - window.column, 0, window.width).astype(np.int64)
    places = (rows - window.row) * (window.width + 1) + columns
    changes = np.bincount(places, minlength=window.height * (window.width + 1))
    changes = changes.reshape(window.height, window.width + 1)[:, : window.width]
    return np.cumsum(changes, axis=1) % 2 == 1
