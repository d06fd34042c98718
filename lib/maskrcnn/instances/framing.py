"""What the network sees of a tile: resized, scaled and padded as the model's variant wants.

The legacy models see the tile as it is, in a frame of the tile's size. Other programs resize an image until
it has a certain size, shrink or enlarge, and pad what they have scaled with zeros at the right and at the
bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ann.data.samples.scaling import scale_pixels
from maskrcnn.config import Variant

PADDED_TO = 32  # pixels, the stride of the backbone
FIXED_BITS = 22  # of the weights with which bytes are resized: 32 without the 8 of a byte and 2 to spare


def resized_shape(height: int, width: int, variant: Variant) -> tuple[int, int]:
    """Size of an image of (height, width) pixels after resizing.

    The shorter side gets `shorter_side`, unless the longer one were above `longer_side`. The scale is applied
    to both sides as numbers of double precision before they are rounded, so a side may end a pixel below.
    """
    if not variant.resizes:
        return height, width
    shorter, longer = min(height, width), max(height, width)
    if variant.sides_rounding == "down":
        scale = min(variant.shorter_side / shorter, variant.longer_side / longer)
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    scale = variant.shorter_side / shorter
    sides = [float(variant.shorter_side) if side == shorter else scale * side for side in (height, width)]
    if max(sides) > variant.longer_side:
        scale = variant.longer_side / max(sides)
        sides = [side * scale for side in sides]
    return max(1, int(sides[0] + 0.5)), max(1, int(sides[1] + 0.5))


def frame_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The frame that an image of that size is padded to."""
    return tuple(-(-side // PADDED_TO) * PADDED_TO for side in shape)


def network_view(
    pixels: np.ndarray, variant: Variant, mean: Sequence[float], scale: Sequence[float]
) -> np.ndarray:
    """An image as the network sees it, without padding.

    Args:
        pixels: (h, w, C) of any real type.
        mean, scale: of each band.

    Returns:
        (h', w', C) float32.
    """
    shape = resized_shape(*pixels.shape[:2], variant)
    if shape == pixels.shape[:2]:
        return scale_pixels(pixels, mean, scale)
    if not variant.bytes_resized:
        return resize(scale_pixels(pixels, mean, scale), shape)
    if holds_bytes(pixels):
        return scale_pixels(resize_bytes(pixels, shape), mean, scale)
    return scale_pixels(resize(np.asarray(pixels, np.float32), shape), mean, scale)


def holds_bytes(pixels: np.ndarray) -> bool:
    """Whole numbers from 0 to 255, of whatever type: GRASS keeps bytes as larger integers."""
    if pixels.dtype == np.uint8:
        return True
    return pixels.dtype.kind in "iu" and pixels.size > 0 and pixels.min() >= 0 and pixels.max() <= 255


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear between the middles of the pixels, the outer ones going on, without anti-aliasing.

    (h, w, C) float32 -> (*shape, C) float32.
    """
    for axis, length in enumerate(shape):
        held = image.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * (held / length) - 0.5, 0, held - 1)
        lower = np.floor(place).astype(int)
        upper = np.minimum(lower + 1, held - 1)
        share = (place - lower).astype(np.float32).reshape(-1, *(1,) * (2 - axis))
        first, second = np.take(image, lower, axis), np.take(image, upper, axis)
        image = first + (second - first) * share
    return np.ascontiguousarray(image, np.float32)


def resize_bytes(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear with anti-aliasing where it shrinks, rounded to bytes after each axis, columns first.

    Weights are whole numbers of FIXED_BITS bits, as in Pillow; each band by itself. (h, w, C) ->
    (*shape, C) uint8.
    """
    for axis in (1, 0):
        if image.shape[axis] != shape[axis]:
            weights = _byte_weights(image.shape[axis], shape[axis])
            sums = np.tensordot(weights, image.astype(np.float64), (1, axis))  # exact: below 2^53
            sums = np.floor((sums + 2.0 ** (FIXED_BITS - 1)) / 2.0**FIXED_BITS)
            image = np.moveaxis(np.clip(sums, 0, 255).astype(np.uint8), 0, axis)
    return np.ascontiguousarray(image.astype(np.uint8))


def resize_weights(held: int, wanted: int, as_bytes: bool) -> np.ndarray:
    """(wanted, held): resizing along an axis as a matrix, as `resize` or `resize_bytes` does it, in which
    case it is exact.
    """
    if as_bytes:
        return _byte_weights(held, wanted) / 2.0**FIXED_BITS
    return resize(np.eye(held, dtype=np.float32)[..., None], (wanted, held))[..., 0]


@lru_cache(maxsize=16)
def _byte_weights(held: int, wanted: int) -> np.ndarray:
    """(wanted, held) float64, whole numbers: a triangle as wide as two pixels, of the result where it
    shrinks.
    """
    scale = held / wanted
    reach = max(scale, 1.0)
    weights = np.zeros((wanted, held))
    for index in range(wanted):
        middle = (index + 0.5) * scale
        first, last = max(0, int(middle - reach + 0.5)), min(held, int(middle + reach + 0.5))
        distance = np.abs((np.arange(first, last) - middle + 0.5) / reach)
        part = np.maximum(1 - distance, 0)
        weights[index, first:last] = np.floor(part / part.sum() * 2.0**FIXED_BITS + 0.5)
    weights.setflags(write=False)
    return weights
