"""Chips: the cells of raster maps around features, or in windows, that a network sees as one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.example import Example
from ann.data.outlines.shapes import Polygons
from ann.data.pixels.decoded import Decoded
from ann.data.pixels.means import shrink
from ann.data.pixels.rasters import decoded_images
from ann.data.pixels.windows import Window, whole
from ann.grass.bands import Band
from ann.grass.labels import MapPixels
from ann.grass.region import Grid
from ann.inference.scene import Scene

EDGE = 1e-6  # cells; borders of chips closer than this to a border of cells are on it


def chip_boxes(boxes: np.ndarray, side: float | None, smallest: float) -> np.ndarray:
    """Squares around features, (N, 4) float64: west, south, east, north in map units.

    boxes: of the features, in the same form. side: of the squares, map units; a feature that is larger is
    seen as a whole. None: as large as the feature, and at least `smallest`.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    wanted = smallest if side is None else side
    half = np.maximum((high - low).max(axis=1), wanted) / 2
    centre = (low + high) / 2
    return np.concatenate([centre - half[:, None], centre + half[:, None]], axis=1)


def chip_windows(boxes: np.ndarray, grid: Grid) -> np.ndarray:
    """The cells of a grid in these boxes, (N, 4) int64: y1, x1, y2, x2, cut off at its borders.

    A cell is in a box if its middle is. y2 is not above y1, or x2 not above x1, where the box lies outside.
    """
    columns = (boxes[:, [0, 2]] - grid.west) / grid.column_size
    rows = (grid.north - boxes[:, [3, 1]]) / grid.row_size
    x = np.clip(np.ceil(columns - 0.5 - EDGE), 0, grid.columns)
    y = np.clip(np.ceil(rows - 0.5 - EDGE), 0, grid.rows)
    return np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], axis=1).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipPixels:
    """The pixels of a chip, called as `PixelSource`; kept in memory while there is room.

    ground: what is seen of it alone, in cells of the grid; None: all. longest: see `shrink`.
    """

    bands: tuple[Band, ...]
    grid: Grid
    longest: int
    ground: Polygons | None = None

    def __call__(self, window: Window | None = None) -> Decoded:
        key = (tuple(map(str, self.bands)), self.grid, self.longest, self.ground is not None)
        decoded = decoded_images.get(key)
        if decoded is None:
            read = MapPixels(bands=self.bands, grid=self.grid, ground=self.ground)
            pixels, valid = read(whole(self.grid.rows, self.grid.columns))
            if valid is None:
                valid = np.ones(pixels.shape[:2], bool)
            decoded = shrink(pixels, valid, self.longest)
            decoded_images.put(key, decoded)
        pixels, valid = decoded
        y1, x1, y2, x2 = (window or whole(*pixels.shape[:2])).box
        return pixels[y1:y2, x1:x2].copy(), None if valid is None else valid[y1:y2, x1:x2].copy()


class SceneChips:
    """Chips of one scene, to be read in the order of their first rows.

    windows: (N, 4) int64, see `chip_windows`; those outside of the scene have no data. ids: (N,) the value
    of the scene's last band that marks the cells of each chip that are seen; None: all cells are, and all
    bands.
    """

    def __init__(self, scene: Scene, windows: np.ndarray, longest: int, ids: Sequence[int] | None = None):
        self._scene, self._windows, self._longest, self._ids = scene, windows, longest, ids

    def read(self, index: int) -> Example | None:
        """A chip; None where it shows no data."""
        y1, x1, y2, x2 = self._windows[index].tolist()
        if y2 <= y1 or x2 <= x1:
            return None
        pixels, valid = self._scene.read(y1, x1, y2 - y1, x2 - x1)
        if self._ids is not None:
            valid = valid & (pixels[..., -1] == self._ids[index])
            pixels = np.where(valid[..., None], pixels[..., :-1], 0)
        if not valid.any():
            return None
        pixels, known = shrink(pixels, valid, self._longest)
        return Example(
            image=pixels,
            masks=(),
            class_ids=np.zeros(0, np.int32),
            name=self._scene.name,
            valid=known,
        )
