"""Changes that leave an overhead image as plausible as it was, each drawn from a seeded generator.

Overhead images have no up: all eight flips and quarter turns are exact. Scale varies a little, brightness and
contrast by each band's own spread, so that any number of bands and any type of numbers are treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ann.data.outlines.masks import CroppedMask

ZOOM_LIMIT = 1.25  # objects are shown at 1 / 1.25 to 1.25 times their size
CONTRAST_LIMIT, BAND_CONTRAST_LIMIT = 0.2, 0.05  # natural logarithms: all bands together, each on its own
ORIENTATIONS = 8  # flips and quarter turns
BRIGHTNESS_LIMIT, BAND_BRIGHTNESS_LIMIT = 0.2, 0.05  # in standard deviations of the band


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentation:
    """What is done to one sample. orientation: 0 to 7, see `orient_image`; contrast, brightness: (C,)."""

    zoom: float
    orientation: int
    contrast: np.ndarray
    brightness: np.ndarray


def draw_augmentation(
    generator: np.random.Generator, bands: int, *, square: bool, zoom: bool
) -> Augmentation:
    """Draw the changes of one sample. square: quarter turns fit; zoom: the scale may vary."""
    limit = math.log(ZOOM_LIMIT)
    drawn_zoom = math.exp(generator.uniform(-limit, limit))
    orientation = int(generator.integers(ORIENTATIONS))
    contrast = generator.uniform(-CONTRAST_LIMIT, CONTRAST_LIMIT) + generator.uniform(
        -BAND_CONTRAST_LIMIT, BAND_CONTRAST_LIMIT, bands
    )
    brightness = generator.uniform(-BRIGHTNESS_LIMIT, BRIGHTNESS_LIMIT) + generator.uniform(
        -BAND_BRIGHTNESS_LIMIT, BAND_BRIGHTNESS_LIMIT, bands
    )
    return Augmentation(
        zoom=drawn_zoom if zoom else 1.0,
        orientation=orientation if square else orientation - orientation % 2,
        contrast=np.exp(contrast),
        brightness=brightness,
    )


def orient_image(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, ...) by `orientation % 4` quarters against the clock; from 4 on flip it left to right
    before.
    """
    if orientation >= 4:
        image = image[:, ::-1]
    return np.rot90(image, orientation % 4)


def turned_back(orientation: int) -> int:
    """The orientation that undoes one: a flip undoes itself, whichever way it was turned."""
    return orientation if orientation >= 4 else -orientation % 4


def orient_mask(mask: CroppedMask, orientation: int, height: int, width: int) -> CroppedMask:
    """Turn and flip a mask of an image of (height, width) as `orient_image` turns the image."""
    row, column = mask.row, mask.column
    rows, columns = mask.pixels.shape
    if orientation >= 4:
        column = width - column - columns
    for _ in range(orientation % 4):
        row, column = width - column - columns, row
        rows, columns, height, width = columns, rows, width, height
    return CroppedMask(
        row=row, column=column, pixels=np.ascontiguousarray(orient_image(mask.pixels, orientation))
    )


def adjust_bands(
    image: np.ndarray, valid: np.ndarray | None, contrast: np.ndarray, brightness: np.ndarray
) -> np.ndarray:
    """Change contrast (factor) and brightness (standard deviations) of each band around its mean.

    image: (H, W, C), float32 comes out; valid: (H, W) bool or None, pixels outside stay as they are and don't
    count. Whole numbers stay inside the range of their type.
    """
    limits = np.iinfo(image.dtype) if image.dtype.kind in "ui" else None
    height, width, bands = image.shape
    values = np.ascontiguousarray(image, dtype=np.float32)
    counted = values.reshape(-1, bands) if valid is None else values[valid]
    if not len(counted):
        return values
    # Some 16,000 pixels are enough for mean and spread.
    sample = np.ascontiguousarray(counted[:: max(1, len(counted) // 16384)].T)
    mean, spread = sample.mean(axis=1), sample.std(axis=1)
    offset = mean * (1 - contrast) + brightness * spread
    changed = values.reshape(height, width * bands) * np.tile(contrast, width).astype(np.float32)
    changed += np.tile(offset, width).astype(np.float32)
    changed = changed.reshape(image.shape)
    if limits is not None:
        np.clip(changed, limits.min, limits.max, out=changed)
    if valid is not None:
        changed[~valid] = values[~valid]
    return changed
