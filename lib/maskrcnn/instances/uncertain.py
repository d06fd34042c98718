"""Where would labels help most? Windows of a scene, by how uncertain the network is of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.inference.tiles import Tile, TileGrid
from maskrcnn.instances.instances import Instance


@dataclass(frozen=True, kw_only=True)
class UncertainWindow:
    """A window of a scene. uncertainty: sum of that of its detections, see `uncertainty`."""

    window: Tile
    uncertainty: float
    detections: int


class UncertainWindows:
    """Adds up the uncertainty of what tiles show, in windows of a tile's size side by side.

    Neighbouring tiles show an object both: it counts in the one whose middle it is nearest to. Memory is two
    numbers for each window.
    """

    def __init__(self, grid: TileGrid):
        self._grid = grid
        self._sides = grid.tile_height, grid.tile_width
        shape = (-(-grid.scene_height // grid.tile_height), -(-grid.scene_width // grid.tile_width))
        self._sums, self._counts = np.zeros(shape), np.zeros(shape, np.int64)

    def add(self, tile: Tile, instances: Sequence[Instance]) -> None:
        """Add what was found in a tile, also what is below the confidence."""
        rows = _own(self._grid.row_starts, tile.row, tile.height)
        columns = _own(self._grid.column_starts, tile.column, tile.width)
        for one in instances:
            y1, x1, y2, x2 = one.mask.box
            row, column = (y1 + y2) / 2, (x1 + x2) / 2
            if rows[0] <= row < rows[1] and columns[0] <= column < columns[1]:
                place = int(row) // self._sides[0], int(column) // self._sides[1]
                self._sums[place] += uncertainty(one)
                self._counts[place] += 1

    def ranked(self) -> list[UncertainWindow]:
        """Windows with detections, the most uncertain first; equal ones from the top left on."""
        found = []
        for row, column in np.argwhere(self._counts).tolist():
            top, left = row * self._sides[0], column * self._sides[1]
            height = min(self._sides[0], self._grid.scene_height - top)
            width = min(self._sides[1], self._grid.scene_width - left)
            found.append(
                UncertainWindow(
                    window=Tile(row=top, column=left, height=height, width=width),
                    uncertainty=float(self._sums[row, column]),
                    detections=int(self._counts[row, column]),
                )
            )
        return sorted(found, key=lambda one: (-one.uncertainty, one.window.row, one.window.column))


def uncertainty(one: Instance) -> float:
    """0 for a detection with a score of 0 or 1, 1 where it may as well be none.

    That is at a score of 0.5, and where the turns of the tile differ as much as scores can.
    """
    doubt = 4 * one.score * (1 - one.score)
    return doubt if one.certainty is None else max(doubt, 2 * one.certainty.spread)


def _own(starts: Sequence[int], start: int, side: int) -> tuple[float, float]:
    """The part of a tile's side, scene pixels, that lies nearest to its middle."""
    index = starts.index(start)
    first = (start + starts[index - 1] + side) / 2 if index else -np.inf
    last = (starts[index + 1] + start + side) / 2 if index + 1 < len(starts) else np.inf
    return first, last
