"""A value for each cell of a scene of any size, which does not depend on how the scene was cut.

Of a tile only the cells count whose whole field of view lies inside of it: tiles share twice the network's
reach, and begin at multiples of its stride in a grid that is fixed to the ground. Beyond its border a map is
mirrored for the network, so that what runs out of it does not end before; beyond the border of the
computational region the network sees what the map shows there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ann.errors import AnnError
from ann.inference.scene import Scene
from ann.inference.tile_rows import (
    NetworkInput,
    ProgressCount,
    Report,
    TileBatch,
    Workers,
    check_bands,
    network_input,
    tile_rows,
)
from ann.inference.tiles import TileGrid, cut_tiles
from ann.multiples import check_multiple


@dataclass(frozen=True, kw_only=True)
class CellSettings:
    """How a scene is cut. reach: cells around a cell that its value depends on; stride: the network's."""

    given: NetworkInput
    reach: int
    stride: int

    def __post_init__(self):
        for side in self.given.tile_shape:
            check_multiple("tile_size", side, self.stride, "the network's stride of ")
            if side <= 2 * self.halo:
                raise AnnError(
                    f"The tile size {side} is too small: the network sees {self.reach} pixels around a "
                    "cell, which leaves no cell of the tile whole. "
                    f"Use {smallest_tile(self.reach, self.stride)} or more; larger ones compute less twice"
                )

    @property
    def halo(self) -> int:
        """Cells at each side of a tile that are seen and not handed out: the reach, up to the stride."""
        return halo(self.reach, self.stride)


def halo(reach: int, stride: int) -> int:
    """The reach, rounded up to a multiple of the stride."""
    return -(-reach // stride) * stride


def smallest_tile(reach: int, stride: int) -> int:
    """Side of the smallest tile in which as many cells count in each direction as the halo has, pixels."""
    return 4 * max(halo(reach, stride), stride)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a scene whose cells are wanted, and where the scene lies in the grid of the ground.

    row, column, height, width: in cells of the scene, which may show more around for the network to see.
    origin: (row, column) of the scene's first cell in the fixed grid; only the remainders count that the
    stride leaves.
    """

    row: int
    column: int
    height: int
    width: int
    origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Finished rows of the part. values: (h, W, K), as the workers give them, 0 without data, K being 1 where
    no cell of the rows' tiles has data; valid: (h, W) bool, False without data.
    """

    row: int
    values: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Cells around a scene: `top` rows above and `left` columns before its first cell (if these are negative,
    so many of the scene are left out); height and width are those of all.
    """

    top: int
    left: int
    height: int
    width: int


class PaddedScene:
    """A scene that goes on beyond its borders, mirrored there; of these cells none is handed out."""

    def __init__(self, scene: Scene, padding: Padding):
        self._scene, self._top, self._left = scene, padding.top, padding.left
        self.name, self.bands = scene.name, scene.bands
        self.height, self.width = padding.height, padding.width

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene.read`."""
        rows = _mirrored(row - self._top, height, self._scene.height)
        columns = _mirrored(column - self._left, width, self._scene.width)
        top, left = int(rows.min()), int(columns.min())
        pixels, valid = self._scene.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        place = np.ix_(rows - top, columns - left)
        return pixels[place], valid[place]


def _mirrored(start: int, length: int, limit: int) -> np.ndarray:
    """Where cells lie in a row of `limit` cells that is mirrored at its ends, again and again: `length` cells
    from `start` on, (length,) int64.
    """
    cells = np.arange(start, start + length) % (2 * limit)
    return np.minimum(cells, 2 * limit - 1 - cells)


def _inside(start: int, length: int, limit: int) -> tuple[int, int]:
    """The part of `length` cells from `start` that lies within 0 to `limit`."""
    return max(start, 0), min(start + length, limit)


def cut_part(part: Part, settings: CellSettings) -> tuple[Padding, TileGrid]:
    """What tiles show beyond a scene, and the tiles. Handed-out cells follow each other gapless."""
    halo = settings.halo
    before, lengths = [], []
    for start, length, origin, side in zip(
        (part.row, part.column),
        (part.height, part.width),
        part.origin,
        settings.given.tile_shape,
        strict=True,
    ):
        core = side - 2 * halo
        phase = (origin + start) % settings.stride
        before.append(halo + phase - start)  # cells of the padded scene before the scene's first
        lengths.append(-(-(phase + length) // core) * core + 2 * halo)
    padding = Padding(top=before[0], left=before[1], height=lengths[0], width=lengths[1])
    return padding, cut_tiles(*lengths, settings.given.tile_shape, max(2 * halo, 1))


def predict_cells(
    scene: Scene,
    part: Part,
    workers: Workers,
    settings: CellSettings,
    report: Report | None = None,
) -> Iterator[Rows]:
    """The values of a part of a scene, as finished rows from top to bottom; each row comes once.

    workers: give for each tile what `cell_worker` gives. If they read the scene themselves, they see it with
    the padding of `cut_part`.

    Raises:
        SceneError: the scene can't be read, or has another number of bands than the model.
    """
    check_bands(scene, settings.given)
    padding, grid = cut_part(part, settings)
    padded = PaddedScene(scene, padding)
    progress = ProgressCount(len(grid), report)
    halo = settings.halo
    core = settings.given.tile_shape[0] - 2 * halo
    above = halo + (part.origin[0] + part.row) % settings.stride  # padded rows before the part's first
    left = halo + (part.origin[1] + part.column) % settings.stride
    for tiles in tile_rows(padded, grid, workers, settings.given.batch_size, progress):
        start = time.perf_counter()
        top = tiles[0][0].row + halo
        made = next((result[0] for _, result in tiles if result is not None), np.zeros((0, 0, 1), np.float32))
        first, last = _inside(top - above, core, part.height)
        if first >= last:
            continue
        rows = slice(first + above - top, last + above - top)
        values = np.zeros((last - first, part.width, made.shape[-1]), dtype=made.dtype)
        valid = np.zeros((last - first, part.width), dtype=bool)
        for tile, result in tiles:
            if result is None:
                continue
            offset = tile.column + halo - left
            begin, end = _inside(offset, result[0].shape[1], part.width)
            if begin < end:
                place, source = np.s_[:, begin:end], np.s_[rows, begin - offset : end - offset]
                values[place], valid[place] = result[0][source], result[1][source]
        progress.add(seconds_merging=time.perf_counter() - start)
        start = time.perf_counter()
        yield Rows(row=first, values=values, valid=valid)
        progress.add(seconds_writing=time.perf_counter() - start)


def cell_worker(
    network: Callable[[np.ndarray], np.ndarray],
    settings: CellSettings,
    finish: Callable[[np.ndarray], np.ndarray] = np.copy,
) -> Callable[[TileBatch], list[tuple[np.ndarray, np.ndarray]]]:
    """A worker from a network, images (B, H, W, C) float32 scaled -> values (B, H, W, K).

    It gives for each tile what `finish` makes of the values of the cells that count, (h, w, K), by default
    the same, and which of them have data, (h, w) bool.
    """
    halo = settings.halo
    inner = np.s_[halo : settings.given.tile_shape[0] - halo, halo : settings.given.tile_shape[1] - halo]

    def work(batch: TileBatch) -> list[tuple[np.ndarray, np.ndarray]]:
        images, _ = network_input(batch, settings.given)
        values = np.asarray(network(images))
        return [(finish(values[index][inner]), valid[inner]) for index, valid in enumerate(batch.valid)]

    return work
