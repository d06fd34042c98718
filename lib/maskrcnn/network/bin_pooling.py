"""Pooling as the mean over each bin ("RoIAlign"): of bilinear samples that lie evenly in it.

In pixels of the input. As in `roi_pooling`, from the level of the pyramid that suits a region's size, but
with that level, the samples and the place of the cells as the model's variant says. `align` is for graphs,
`align_on_cpu` for NumPy: the only one that takes as many samples as a bin has cells, however long the bin is.

Shapes: B images, n regions, p x p bins, C channels. Source: K. He et al., Mask R-CNN, 2017, and the rules of
`foreign/`'s programs.
"""

from __future__ import annotations

import math

import numpy as np
from keras import ops

from maskrcnn.config import Variant
from maskrcnn.network.anchors import STRIDES
from maskrcnn.network.roi_pooling import LEVELS, USUAL_SIZE, blend_rows
from maskrcnn.network.sampling import Samples, corners

MOST_SAMPLES = 4  # of a bin along each axis, in a graph; enough for 4 p cells


def level_limits(variant: Variant) -> list[float]:
    """Sizes in pixels, roots of areas, from which on a region is pooled from P3, P4, P5.

    floor(4 + log2(size / 224) + shift) is at least the level exactly from these sizes on.
    """
    return [USUAL_SIZE * 2.0 ** (level - 4 - variant.level_shift) for level in LEVELS[1:]]


def align(cells, shapes, rois, size: int, variant: Variant, first_cell=0):
    """Features of each region.

    With as many samples as a bin has cells, no more than MOST_SAMPLES are taken along an axis.

    Args:
        cells: (B, cells, C), P2 to P5 in one row.
        shapes: (height, width) of each of these levels.
        rois: (B, n, 4) float32, pixels.
        size: bins along each side, p.
        first_cell: 0, or (B, n) int32: where the pyramid of each region starts if `cells` holds several.

    Returns:
        (B, n, p, p, C), type of `cells`. Gradients flow to the cells, not to the regions.
    """
    rois = ops.cast(ops.stop_gradient(rois), "float32")
    count = rois.shape[1]
    area = (rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1])
    sides = ops.sqrt(ops.maximum(area, 0.0))
    level = sum(ops.cast(sides >= limit, "int32") for limit in level_limits(variant))
    heights, widths = zip(*shapes, strict=True)
    starts = [sum(h * w for h, w in shapes[:i]) for i in range(len(shapes))]
    height, width, start = (
        ops.take(ops.convert_to_tensor(values, dtype="int32"), level, axis=0)
        for values in (heights, widths, starts)
    )  # (B, n) each
    scale = ops.take(
        ops.convert_to_tensor([1 / stride for stride in STRIDES[:4]], dtype="float32"), level, axis=0
    )
    rows, row_weights = _samples(rois[..., 0] * scale, rois[..., 2] * scale, height, size, variant)
    columns, column_weights = _samples(rois[..., 1] * scale, rois[..., 3] * scale, width, size, variant)
    indices, weights = corners(rows, columns, width)  # (B, n, p S, p S, 4)
    weights = weights * (row_weights[..., :, None] * column_weights[..., None, :])[..., None]
    indices = indices + (start + first_cell)[..., None, None, None]
    samples = indices.shape[2] // size
    indices, weights = (
        ops.reshape(
            ops.transpose(
                ops.reshape(values, (-1, count, size, samples, size, samples, 4)), (0, 1, 2, 4, 3, 5, 6)
            ),
            (-1, count * size * size, samples * samples * 4),
        )
        for values in (indices, weights)
    )
    pooled = blend_rows(cells, indices, ops.cast(weights, cells.dtype))
    return ops.reshape(pooled, (-1, count, size, size, cells.shape[-1]))


def _samples(low, high, length, size, variant):
    """Samples along one axis, those of a bin side by side, and the weight of each, (..., p S)."""
    most = variant.pooling_samples or MOST_SAMPLES
    low, side = low - variant.pooling_shift, high - low
    if not variant.pooling_shift:
        side = ops.maximum(side, 1.0)
    bin_side = side / size
    taken = float(most) if variant.pooling_samples else ops.clip(ops.ceil(bin_side), 1.0, float(most))
    taken = ops.zeros_like(bin_side) + taken
    number = ops.arange(size * most, dtype="int32")
    bins, numbers = (ops.cast(values, "float32") for values in (number // most, number % most))
    low, bin_side, taken = (ops.expand_dims(values, -1) for values in (low, bin_side, taken))
    place = low + bins * bin_side + (numbers + 0.5) * (bin_side / taken)
    last = ops.cast(ops.expand_dims(length, -1), "float32") - 1.0
    inside = (place >= -1.0) & (place <= last + 1.0)
    place = ops.clip(place, 0.0, last)
    lower = ops.floor(place)
    upper = ops.minimum(lower + 1.0, last)
    samples = Samples(ops.cast(lower, "int32"), ops.cast(upper, "int32"), place - lower, inside)
    return samples, ops.where(numbers < taken, 1.0 / taken, 0.0)


def align_on_cpu(
    cells: np.ndarray, shapes, rois: np.ndarray, size: int, variant: Variant, starts=None
) -> np.ndarray:
    """`align` of regions in a row, region by region, with as many samples as the variant wants.

    The mean of a bin's samples is a sum over rows of sums over columns, so a region is two matrix products.

    Args:
        cells: (cells, C) float32, P2 to P5 of one or more images in one row.
        rois: (n, 4) float32, pixels.
        starts: (n,) where the pyramid of each region starts; None for 0.

    Returns:
        (n, p, p, C) float32.
    """
    rois = np.asarray(rois, np.float32)
    sides = np.sqrt(np.maximum((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1]), 0))
    levels = np.searchsorted(np.float32(level_limits(variant)), sides, side="right")
    level_starts = np.cumsum([0, *(height * width for height, width in shapes)])
    pooled = np.zeros((len(rois), size, size, cells.shape[-1]), np.float32)
    for index, (roi, level) in enumerate(zip(rois, levels, strict=True)):
        height, width = shapes[level]
        scaled = roi * np.float32(1 / STRIDES[level])
        top, rows = _bin_weights(scaled[0], scaled[2], height, size, variant)
        left, columns = _bin_weights(scaled[1], scaled[3], width, size, variant)
        start = level_starts[level] + (0 if starts is None else starts[index])
        maps = cells[start : start + height * width].reshape(height, width, -1)
        part = maps[top : top + rows.shape[1], left : left + columns.shape[1]]
        across = (
            np.tensordot(rows, part, 1) if rows.shape[1] else np.zeros((size, *part.shape[1:]), np.float32)
        )
        pooled[index] = np.matmul(columns, across)
    return pooled


def _bin_weights(low, high, length: int, size: int, variant: Variant) -> tuple[int, np.ndarray]:
    """The first cell that a region's samples touch along an axis, and the weight of each from there, (p,
    cells).
    """
    low, high = (np.float32(edge - np.float32(variant.pooling_shift)) for edge in (low, high))
    side = high - low
    if not variant.pooling_shift:
        side = max(side, np.float32(1))
    bin_side = np.float32(side / np.float32(size))
    count = variant.pooling_samples or math.ceil(bin_side)
    if count < 1:
        return 0, np.zeros((size, 0), np.float32)
    bins, numbers = np.divmod(np.arange(size * count), count)
    place = low + bins * bin_side + (numbers + np.float32(0.5)) * (bin_side / np.float32(count))
    place = place.astype(np.float32)
    inside = (place >= -1) & (place <= length)
    place = np.clip(place, 0, length - 1)
    lower = np.floor(place).astype(int)
    upper, share = np.minimum(lower + 1, length - 1), place - lower
    first = int(lower.min())
    weights = np.zeros((size, int(upper.max()) + 1 - first), np.float32)
    for cell, weight in ((lower, 1 - share), (upper, share)):
        np.add.at(weights, (bins, cell - first), np.where(inside, weight, 0) / count)
    return first, weights
