"""The geometry of the legacy models: enlarge, truncate, pad; masks to mini masks and back.

Exact to the last bit against the original (`tests/reference/data.npz`), rounding included, because models
were trained on these pixels. Scales are factors: 2 makes an image twice as high and wide.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from ann.data.outlines.masks import CroppedMask, crop_mask


def resize_image(
    image: np.ndarray, min_dim: int, max_dim: int
) -> tuple[np.ndarray, tuple[int, int, int, int], float, tuple[tuple[int, int], tuple[int, int]]]:
    """Fit an image into a square of `max_dim` pixels, padded with zeros.

    Small images are enlarged until the shorter side has `min_dim` pixels, never shrunk for that; then
    everything is shrunk whose longer side is above `max_dim`.

    image: (H, W, C), any type of numbers.
    Returns: the image (max_dim, max_dim, C) of the same type; the box of the image in it, (y1, x1, y2, x2)
        pixels; the scale; the padding ((top, bottom), (left, right)).
    """
    height, width = image.shape[:2]
    scale = legacy_scale(height, width, min_dim, max_dim)
    if scale != 1:
        image = resize_bilinear(image, round(height * scale), round(width * scale))
    padded, padding = pad_image(image, max_dim, max_dim)
    (top, _), (left, _) = padding
    return padded, (top, left, top + image.shape[0], left + image.shape[1]), scale, padding


def legacy_scale(height: int, width: int, min_dim: int, max_dim: int | None) -> float:
    """The factor by which the legacy rule resizes an image; max_dim None: no upper limit."""
    scale = max(1, min_dim / min(height, width))
    if max_dim is not None and round(max(height, width) * scale) > max_dim:
        scale = max_dim / max(height, width)
    return scale


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W) or (H, W, C) bilinearly, without anti-aliasing, to the same type of numbers.

    Beyond the edge lies 0, so an enlarged image darkens at its border; integers are truncated, not rounded.
    """
    zoom = (height / image.shape[0], width / image.shape[1]) + (1,) * (image.ndim - 2)
    values = ndimage.zoom(
        image.astype(np.float64),
        zoom,
        order=1,
        mode="grid-constant",
        cval=0.0,
        grid_mode=True,
        prefilter=False,
    )
    # The original limits the result to the range of its input, except where it is the 0 from beyond the edge.
    low, high = image.min(), image.max()
    beyond_edge = (values == 0) if not low <= 0 <= high else None
    np.clip(values, low, high, out=values)
    if beyond_edge is not None:
        values[beyond_edge] = 0
    return values.astype(image.dtype)


def resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, C) bilinearly to float32: not the legacy rule, but several times faster.

    The image goes on beyond its edge, so borders don't darken. Used where the scale is drawn by chance.
    """
    rows, row_share = _corners(image.shape[0], height)
    columns, column_share = _corners(image.shape[1], width)
    bands = image.shape[2]
    image = image.astype(np.float32)
    upper, lower = image[rows[0]], image[rows[1]]  # (height, W, C)
    lower -= upper
    lower *= row_share[:, None, None]
    upper += lower
    left, right = upper[:, columns[0]], upper[:, columns[1]]  # (height, width, C)
    right -= left
    flat = right.reshape(height, width * bands)  # whole rows at once: faster than pixel by pixel
    flat *= np.repeat(column_share, bands)
    left += right
    return left


def _corners(length: int, new_length: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """For each new pixel the two old ones around its centre and the share of the second."""
    centre = np.clip((np.arange(new_length) + 0.5) * (length / new_length) - 0.5, 0, length - 1)
    first = np.floor(centre).astype(np.int64)
    return (first, np.minimum(first + 1, length - 1)), (centre - first).astype(np.float32)


def pad_image(
    image: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, tuple[tuple[int, int], tuple[int, int]]]:
    """Pad (H, W, C) with zeros to (height, width, C), the image in the middle (an odd pixel goes below and
    right).
    """
    missing_rows, missing_columns = height - image.shape[0], width - image.shape[1]
    if missing_rows < 0 or missing_columns < 0:
        raise ValueError(
            f"Expected an image of at most {height} x {width} pixels, received {image.shape[:2]}"
        )
    top, left = missing_rows // 2, missing_columns // 2
    padding = ((top, missing_rows - top), (left, missing_columns - left))
    if missing_rows or missing_columns:
        image = np.pad(image, (*padding, *((0, 0),) * (image.ndim - 2)))
    return image, padding


def resize_mask(
    mask: CroppedMask, from_shape: tuple[int, int], to_shape: tuple[int, int], row: int = 0, column: int = 0
) -> CroppedMask | None:
    """Resize a mask with its image, to the nearest pixel; None where no pixel is left.

    from_shape, to_shape: (height, width) of the image before and after; row, column: padding above and left,
    added to the mask's place.
    """
    rows = nearest(from_shape[0], to_shape[0])
    columns = nearest(from_shape[1], to_shape[1])
    y1, x1, y2, x2 = mask.box
    first_row, end_row = np.searchsorted(rows, (y1, y2))
    first_column, end_column = np.searchsorted(columns, (x1, x2))
    pixels = mask.pixels[np.ix_(rows[first_row:end_row] - y1, columns[first_column:end_column] - x1)]
    return crop_mask(pixels, row + int(first_row), column + int(first_column)) if pixels.size else None


def resize_masks(
    masks: np.ndarray, scale: float, padding: tuple[tuple[int, int], tuple[int, int]]
) -> np.ndarray:
    """Resize whole masks (H, W, N) bool as `resize_image` resized their image; the same type, padded."""
    rows = nearest(masks.shape[0], round(masks.shape[0] * scale))
    columns = nearest(masks.shape[1], round(masks.shape[1] * scale))
    return np.pad(masks[rows][:, columns], (*padding, (0, 0)))


@lru_cache(maxsize=64)  # all masks of a sample ask for the same
def nearest(length: int, new_length: int) -> np.ndarray:
    """For each new pixel the old one: end pixels onto end pixels, halves up, as the original's zoom."""
    step = (length - 1) / (new_length - 1) if new_length > 1 else 0.0
    return np.floor(np.arange(new_length) * step + 0.5).astype(np.int64)


def mini_mask(mask: CroppedMask | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask cut to its box and resized to `shape` (height, width): bool, True from above one half.

    mask: a cropped mask, or a whole one (H, W) bool with at least one True.
    """
    cropped = mask if isinstance(mask, CroppedMask) else crop_mask(mask)
    if cropped is None:
        raise ValueError("Expected a mask with at least one pixel inside, received an empty one")
    return np.around(resize_bilinear(cropped.pixels.astype(np.float64), *shape)).astype(bool)


def expand_mini_mask(mini: np.ndarray, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """A mini mask back at its box (y1, x1, y2, x2), pixels, in a mask of (height, width) bool."""
    y1, x1, y2, x2 = (int(value) for value in box)
    full = np.zeros((height, width), dtype=bool)
    full[y1:y2, x1:x2] = np.around(resize_bilinear(mini.astype(np.float64), y2 - y1, x2 - x1)).astype(bool)
    return full
