"""See a scene at another pixel size, without seams between windows."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from ann.errors import SceneError
from ann.inference.reading import read_tile
from ann.inference.scene import Scene
from ann.inference.tiles import Tile

SOURCE_PIXELS_AT_ONCE = 16 * 1024 * 1024  # of the scene below, per window: bounds the float copies


class ResampledScene:
    """A scene with pixels `factor` times as large in each direction: above 1 shrinks, below 1 enlarges it.

    Bilinear between pixel centres; where it shrinks, the triangle grows with the factor, so that each pixel
    of the scene counts (anti-aliasing). The weights of a pixel depend on its place in the scene only, not on
    the window, so windows join without a seam. Pixels without data don't count; a pixel has data where half
    of its weight or more has. Integer types are rounded and kept.

    The result covers round(side / factor) pixels a side, from the upper left corner on.

    Raises:
        SceneError: the factor is not positive, or nothing of the scene is left.
    """

    def __init__(self, scene: Scene, factor: float):
        if not (math.isfinite(factor) and factor > 0):
            raise SceneError(f"Expected a positive resampling factor, received {factor}.")
        self.name, self.bands = scene.name, scene.bands
        self.height, self.width = round(scene.height / factor), round(scene.width / factor)
        if not self.height or not self.width:
            raise SceneError(
                f"Scene {scene.name} of {scene.height} x {scene.width} pixels vanishes with pixels "
                f"{factor} times as large. Give a finer resolution."
            )
        self._scene, self._factor = scene, factor

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene.read`."""
        reach = max(1.0, self._factor)
        source_width = width * self._factor + 2 * reach
        rows_at_once = max(1, int((SOURCE_PIXELS_AT_ONCE / source_width - 2 * reach) / self._factor))
        first_column, across = _weights(column, width, self._factor, self._scene.width)
        parts = []
        for start in range(row, row + height, rows_at_once):
            count = min(rows_at_once, row + height - start)
            first_row, down = _weights(start, count, self._factor, self._scene.height)
            source = Tile(row=first_row, column=first_column, height=down.shape[1], width=across.shape[1])
            pixels, valid = read_tile(self._scene, source)
            parts.append(_resample(pixels, valid, down, across))
        return np.concatenate([part for part, _ in parts]), np.concatenate([valid for _, valid in parts])


def _resample(pixels: np.ndarray, valid: np.ndarray, down, across) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means over the valid pixels: (h, w, C) of the same type, and (h, w) bool.

    pixels: 0 where not valid, and finite as float32, as `read_tile` gives them.
    """
    share = None if valid.all() else _both_ways(valid.astype(np.float32), down, across)
    result = np.empty((down.shape[0], across.shape[0], pixels.shape[2]), dtype=pixels.dtype)
    for band in range(pixels.shape[2]):
        values = pixels[..., band].astype(np.float32)
        mean = _both_ways(values, down, across)
        if share is not None:
            mean = np.divide(mean, share, out=np.zeros_like(mean), where=share > 0)
        if pixels.dtype.kind in "iu":
            limits = np.iinfo(pixels.dtype)
            mean = np.clip(np.rint(mean.astype(np.float64)), limits.min, limits.max)
        result[..., band] = mean
    if share is None:
        return result, np.ones(result.shape[:2], dtype=bool)
    result[share < 0.5] = 0
    return result, share >= 0.5


def _both_ways(values: np.ndarray, down, across) -> np.ndarray:
    return (across @ (down @ values).T).T


def _weights(start: int, count: int, factor: float, side: int) -> tuple[int, sparse.csr_array]:
    """The first source pixel needed, and (count, source pixels) float32 weights; each row sums to 1."""
    reach = max(1.0, factor)
    centres = (np.arange(start, start + count) + 0.5) * factor - 0.5
    taps = np.arange(math.ceil(2 * reach) + 1)
    source = np.floor(centres - reach).astype(np.int64)[:, None] + taps  # (count, taps)
    weights = np.maximum(0.0, 1.0 - np.abs(source - centres[:, None]) / reach)
    weights[(source < 0) | (source >= side)] = 0  # nothing outside of the scene counts
    source = np.clip(source, 0, side - 1)
    weights /= weights.sum(axis=1, keepdims=True)
    first, last = int(source.min()), int(source.max())
    rows = np.repeat(np.arange(count), len(taps))
    matrix = sparse.coo_array(
        (weights.ravel().astype(np.float32), (rows, source.ravel() - first)), shape=(count, last - first + 1)
    )
    return first, matrix.tocsr()
