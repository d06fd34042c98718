"""Images made smaller by means over blocks of their pixels."""

from __future__ import annotations

import numpy as np


def fitted_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) of an image that is shrunk until no side is longer than `longest`, if one is."""
    factor = max(1.0, max(height, width) / longest)
    return max(1, round(height / factor)), max(1, round(width / factor))


def block_sums(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Sums of (H, W, ...) over a grid of blocks, (rows, columns, ...), as even as whole pixels allow.

    Where the grid has more blocks than there are pixels, pixels are repeated.
    """
    for axis, count in enumerate((rows, columns)):
        length = values.shape[axis]
        starts = np.minimum(np.arange(count) * length // count, length - 1)
        values = np.add.reduceat(values, starts, axis=axis)
    return values


def block_means(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means of (H, W) over the blocks of `block_sums`, (rows, columns) float32."""
    sums = block_sums(values.astype(np.float64), rows, columns)
    return (sums / block_sums(np.ones(values.shape), rows, columns)).astype(np.float32)


def shrink(pixels: np.ndarray, valid: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Make an image (H, W, C) smaller until no side is longer than `longest`, by means over its valid pixels.

    The type stays, whole numbers are rounded. valid: (H, W) bool; a block without a valid pixel is not valid.
    Returns also (h, w) bool, None where all is valid.
    """
    size = fitted_size(*pixels.shape[:2], longest)
    if size != pixels.shape[:2]:
        counts = block_sums(valid.astype(np.float64), *size)
        means = block_sums(pixels * valid[..., None].astype(np.float64), *size)
        means /= np.maximum(counts, 1)[..., None]
        if pixels.dtype.kind in "iu":
            means = np.rint(means)
        pixels, valid = means.astype(pixels.dtype), counts > 0
    return pixels, None if valid.all() else valid
