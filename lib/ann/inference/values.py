"""Whether the values of a scene are like those that a model was trained on, judged by a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.inference.reading import read_tile
from ann.inference.scene import Scene
from ann.inference.tiles import Tile

SAMPLES_PER_SIDE = 5  # places of a scene, down and across
SAMPLE_SIDE = 32  # pixels
# How much larger or smaller values may be than those of training. Brightness within a type of data differs by
# less: a mean of 120 is met by 8-bit scenes from 15 to 255. 16 bit, 0 to 1 or 0 to 10000 are farther away.
LARGEST_RATIO, SMALLEST_RATIO = 4.0, 1 / 8
MOST_DEVIATIONS = 6.0  # of the median from the mean of training


def sample_values(scene: Scene) -> np.ndarray:
    """(n, bands) float64: pixels with data of 25 places, n at most 25,600 and 0 where none has data.

    Raises:
        SceneError, or what the scene raises: it can't be read.
    """
    height, width = min(SAMPLE_SIDE, scene.height), min(SAMPLE_SIDE, scene.width)
    rows, columns = _places(scene.height, height), _places(scene.width, width)
    parts = [np.empty((0, scene.bands))]
    for row in rows:
        for column in columns:
            pixels, valid = read_tile(scene, Tile(row=row, column=column, height=height, width=width))
            parts.append(pixels[valid].astype(np.float64))
    return np.concatenate(parts)


def unlike_training(
    values: np.ndarray, band_mean: Sequence[float], band_scale: Sequence[float]
) -> str | None:
    """What is strange about the values of a scene, None if nothing is.

    values: (n, bands) of `sample_values`; band_mean, band_scale: the scaling of the model, in which a scale
    of 1 says nothing about the deviation, and a mean of 0 with it nothing at all.
    """
    if not len(values):
        return None
    for band, (mean, scale) in enumerate(zip(band_mean, band_scale, strict=True)):
        known = scale != 1
        usual = float(np.hypot(mean, scale)) if known else abs(mean)
        if not usual:
            continue
        found = values[:, band]
        ratio = float(np.sqrt(np.mean(found**2))) / usual
        away = abs(np.median(found) - mean) / abs(scale) if known else 0.0
        if SMALLEST_RATIO <= ratio <= LARGEST_RATIO and away <= MOST_DEVIATIONS:
            continue
        deviation = f" with a deviation of {abs(scale):.4g}" if known else ""
        return (
            f"band {band + 1} has {found.min():.5g} to {found.max():.5g}, {found.mean():.5g} on average, "
            f"and the model was trained on {mean:.4g} on average{deviation}"
        )
    return None


def _places(side: int, sample: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, side - sample, SAMPLES_PER_SIDE + 2)[1:-1]})
