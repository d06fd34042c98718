"""Where a box is sampled: one point per bin, the first and last ones on the box's edges.

Along each axis separately, for ROI pooling and for the targets of the masks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

# Pixels. A box that ends exactly at the border may land a rounding error outside of it, differently on each
# backend; such a point is still inside.
ROUNDING = 1e-3


class Samples(NamedTuple):
    """Sample points along one axis, each between two neighbouring pixels. All fields are (..., count)."""

    lower: Any  # int32
    upper: Any  # int32, lower + 1 or the last pixel
    share: Any  # float32, weight of the upper pixel
    inside: Any  # bool, False beyond the first or last pixel's centre


def sample_axis(low, high, length, count):
    """Sample points of boxes along one axis.

    Args:
        low: (...) float32, start of the boxes, normalised (1 is the centre of the last pixel).
        high: (...) float32, their end.
        length: pixels along the axis, a number or (...) int32.
        count: points per box; a single one lies in the middle.
    """
    last = ops.cast(ops.expand_dims(ops.convert_to_tensor(length, dtype="int32"), -1), "float32")
    low, high = ops.expand_dims(low, -1), ops.expand_dims(high, -1)
    if count > 1:
        step = (high - low) * (last - 1.0) / (count - 1)
        position = low * (last - 1.0) + ops.arange(count, dtype="float32") * step
    else:
        position = 0.5 * (low + high) * (last - 1.0)
    inside = (position >= -ROUNDING) & (position <= last - 1.0 + ROUNDING)
    position = ops.clip(position, 0.0, last - 1.0)
    lower = ops.floor(position)
    upper = ops.minimum(lower + 1.0, last - 1.0)
    return Samples(ops.cast(lower, "int32"), ops.cast(upper, "int32"), position - lower, inside)


def corners(rows, columns, width):
    """The four pixels around each sample point of a grid, and their weights, which add up to 1, or 0 outside.

    Args:
        rows: Samples (..., h) along y.
        columns: Samples (..., w) along x.
        width: pixels in a row, a number or (...) int32.

    Returns:
        indices: (..., h, w, 4) int32 into the row by row flattened pixels.
        weights: (..., h, w, 4) float32.
    """
    width = ops.convert_to_tensor(width, dtype="int32")[..., None, None]
    y1, y2, dy = (part[..., :, None] for part in rows[:3])
    x1, x2, dx = (part[..., None, :] for part in columns[:3])
    inside = ops.cast(rows.inside[..., :, None] & columns.inside[..., None, :], "float32")
    indices = ops.stack([y1 * width + x1, y1 * width + x2, y2 * width + x1, y2 * width + x2], axis=-1)
    weights = ops.stack([(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx], axis=-1)
    return indices, weights * ops.expand_dims(inside, -1)
