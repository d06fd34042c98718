"""Anchors: the boxes of fixed sizes and shapes, laid over the image, that the network scores and moves."""

from __future__ import annotations

import numpy as np

STRIDES = (4, 8, 16, 32, 64)  # pixels of the image per cell of P2 to P6


def make_anchors(image_shape, scales, ratios, strides=STRIDES, *, rounded=False, fitted=False):
    """All anchors of an image.

    They are centred on multiples of the stride, not on the cells' centres, and may reach beyond the image.

    Args:
        image_shape: (height, width) in pixels.
        scales: side of a square anchor in pixels, one for each pyramid level.
        ratios: width : height of the anchors at each place.
        strides: pixels per cell, one for each pyramid level.
        rounded: the corners around a place are whole pixels, halves rounded to the even one.
        fitted: the distances of the places are the image's sides over those of the level, rounded down. They
            differ from `strides` where a side is no multiple of the stride.

    Returns:
        (anchors, 4) float32 NumPy array, pixels, (y1, x1, y2, x2), ordered by level, y, x, ratio.
    """
    if len(scales) != len(strides):
        raise ValueError(
            f"Expected one anchor scale for each of {len(strides)} pyramid levels, received {scales}"
        )
    roots = np.sqrt(np.asarray(ratios, np.float64))
    levels = []
    for scale, stride in zip(scales, strides, strict=True):
        rows, columns = _level_shape(image_shape, stride)
        down, right = (image_shape[0] // rows, image_shape[1] // columns) if fitted else (stride, stride)
        y, x, _ = np.meshgrid(
            np.arange(rows) * down, np.arange(columns) * right, np.arange(len(roots)), indexing="ij"
        )
        half_height, half_width = 0.5 * scale / roots, 0.5 * scale * roots  # (ratios,)
        if rounded:
            half_height, half_width = np.round(half_height), np.round(half_width)
        corners = [y - half_height, x - half_width, y + half_height, x + half_width]
        levels.append(np.stack(corners, axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def level_anchor_counts(image_shape, ratios, strides=STRIDES):
    """How many anchors of `make_anchors` each level has."""
    return [len(ratios) * int(np.prod(_level_shape(image_shape, stride))) for stride in strides]


def anchor_count(image_shape, ratios, strides=STRIDES):
    """How many anchors `make_anchors` makes."""
    return sum(level_anchor_counts(image_shape, ratios, strides))


def surrounding_cells(image_shape, strides=STRIDES):
    """For each cell of the pyramid the 3 x 3 cells around it, as a convolution sees them.

    Cells are counted level by level and row by row: that of anchor i of `make_anchors` is i // ratios.

    Returns:
        (cells, 9) int32 NumPy array, ordered by y, x; -1 outside of the level.
    """
    levels, start = [], 0
    for stride in strides:
        rows, columns = _level_shape(image_shape, stride)
        cells = np.pad(start + np.arange(rows * columns).reshape(rows, columns), 1, constant_values=-1)
        around = [cells[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
        levels.append(np.stack(around, axis=-1).reshape(-1, 9))
        start += rows * columns
    return np.concatenate(levels).astype(np.int32)


def _level_shape(image_shape, stride):
    return tuple(-(-side // stride) for side in image_shape)
