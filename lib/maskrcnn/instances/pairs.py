"""Find boxes that touch, without comparing all with all: a grid of buckets, in whole-array operations."""

from __future__ import annotations

import numpy as np

SMALLEST_BUCKET = 16  # pixels


def touching_pairs(boxes: np.ndarray, gap: int = 0) -> np.ndarray:
    """Pairs of boxes that share pixels, or would if each grew by `gap` / 2 on every side.

    boxes: (n, 4) int, (y1, x1, y2, x2), pixels, ends exclusive; gap: pixels, even.
    Returns (pairs, 2) int64, the lower index first, each pair once, sorted.

    Boxes are entered in all buckets they cover (side: twice the mean side, so few each); a pair is reported
    only by the bucket that holds the upper left corner of what both share, so no pair comes twice.
    """
    if gap % 2:
        raise ValueError(f"Expected an even gap, received {gap}")
    boxes = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
    if len(boxes) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    boxes = boxes + np.array([-1, -1, 1, 1]) * (gap // 2)
    boxes = boxes - np.tile(boxes[:, :2].min(axis=0), 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    bucket = max(SMALLEST_BUCKET, int(2 * sides.mean()))
    first = boxes[:, :2] // bucket
    spans = (boxes[:, 2:] - 1) // bucket - first + 1  # (n, 2) buckets covered in rows and columns
    counts = spans.prod(axis=1)
    items = np.repeat(np.arange(len(boxes)), counts)
    place = _count_up(counts)
    columns_in_all = int((boxes[:, 3].max() - 1) // bucket + 1)
    rows = first[items, 0] + place // spans[items, 1]
    columns = first[items, 1] + place % spans[items, 1]
    keys = rows * columns_in_all + columns
    order = np.argsort(keys, kind="stable")
    keys, items = keys[order], items[order]

    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    sizes = np.diff(np.r_[starts, len(keys)])
    later = np.repeat(starts + sizes, sizes) - np.arange(len(keys)) - 1  # members that follow in the bucket
    left = np.repeat(np.arange(len(keys)), later)
    right = left + 1 + _count_up(later)
    one, two, keys = items[left], items[right], keys[left]
    corner = np.maximum(boxes[one, :2], boxes[two, :2])
    end = np.minimum(boxes[one, 2:], boxes[two, 2:])
    reported = (corner < end).all(axis=1)
    reported &= (corner[:, 0] // bucket) * columns_in_all + corner[:, 1] // bucket == keys
    pairs = np.sort(np.stack([one[reported], two[reported]], axis=1), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _count_up(counts: np.ndarray) -> np.ndarray:
    """0 to count - 1 for each count, one after the other: (3, 1, 2) -> 0 1 2 0 0 1."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
