"""Send the tiles of a scene through a network, row of tiles by row of tiles, while the next rows are read.

Memory holds two strips of the scene (tile height x scene width), the batches under way (one, but for
workers), and the results of the rows that are not complete. It does not grow with the scene's height.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ann.data.samples.scaling import scale_pixels
from ann.errors import SceneError
from ann.inference.reading import read_strips
from ann.inference.scene import Scene
from ann.inference.tiles import Tile, TileGrid


@dataclass(frozen=True, kw_only=True)
class NetworkInput:
    """What the network is given. tile_shape: (height, width), pixels; batch_size: tiles at once.

    band_mean and band_scale as in the model's description.
    """

    tile_shape: tuple[int, int]
    band_mean: tuple[float, ...]
    band_scale: tuple[float, ...]
    batch_size: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class TileBatch:
    """Tiles to work on; at most as many as the batch size.

    pixels: (h, w, C) of the scene's type, 0 without data; valid: (h, w) bool. Both are empty for workers that
    read the scene themselves.
    """

    tiles: tuple[Tile, ...]
    pixels: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is, and where the time went. Skipped tiles (without data) count as done.

    instances: objects found so far. seconds_reading: waited for the reader; seconds_writing: spent by the
    caller with what it was handed.
    """

    tiles_total: int
    tiles_done: int = 0
    tiles_skipped: int = 0
    instances: int = 0
    seconds_reading: float = 0.0
    seconds_network: float = 0.0
    seconds_merging: float = 0.0
    seconds_writing: float = 0.0


Report = Callable[[Progress], None]


class ProgressCount:
    """Adds up the progress and tells of it."""

    def __init__(self, tiles_total: int, report: Report | None):
        self._progress = Progress(tiles_total=tiles_total)
        self._report = report

    def add(self, **more: float) -> None:
        """Add to fields of `Progress`."""
        changes = {name: getattr(self._progress, name) + value for name, value in more.items()}
        self._progress = dataclasses.replace(self._progress, **changes)
        if self._report is not None:
            self._report(self._progress)


class Workers(Protocol):
    """Work on several batches at a time, in other threads, processes or machines.

    in_flight: batches that may be under way at once; reads_scene: they read the scene's pixels themselves.
    """

    in_flight: int
    reads_scene: bool

    def submit(self, batch: TileBatch) -> Future:
        """Start on a batch. Its result: for each tile what was made of it, None without data."""


class Here:
    """A function of a batch as `Workers`: it does its work at once, in this thread."""

    in_flight = 1
    reads_scene = False

    def __init__(self, work: Callable[[TileBatch], object]):
        self._work = work

    def submit(self, batch: TileBatch) -> Future:
        future: Future = Future()
        future.set_result(self._work(batch))
        return future


def network_input(batch: TileBatch, given: NetworkInput) -> tuple[np.ndarray, np.ndarray]:
    """What the network gets, always of the same shape: free places are zeros.

    Returns: images (B, H, W, C) float32: padded with raw zeros, then scaled; windows (B, 4) float32,
    (y1, x1, y2, x2): the part of each image that shows the scene.
    """
    height, width = given.tile_shape
    images = np.zeros((given.batch_size, height, width, len(given.band_mean)), dtype=np.float32)
    windows = np.tile(np.array([0, 0, height, width], dtype=np.float32), (given.batch_size, 1))
    for index, (tile, pixels) in enumerate(zip(batch.tiles, batch.pixels, strict=True)):
        padding = ((0, height - tile.height), (0, width - tile.width), (0, 0))
        if any(after for _, after in padding):
            pixels = np.pad(pixels, padding)
        images[index] = scale_pixels(pixels, given.band_mean, given.band_scale)
        windows[index, 2:] = tile.height, tile.width
    return images, windows


def check_bands(scene: Scene, given: NetworkInput) -> None:
    """Refuse a scene of other bands than the model was trained on."""
    if scene.bands != len(given.band_mean):
        raise SceneError(
            f"Scene {scene.name} has {scene.bands} bands, the model was trained on "
            f"{len(given.band_mean)}. Give the same bands in the same order as for training."
        )


def tile_rows(
    scene: Scene, grid: TileGrid, workers: Workers, batch_size: int, progress: ProgressCount
) -> Iterator[list[tuple[Tile, object]]]:
    """For each row of tiles, from top to bottom, its tiles with what the workers made of them.

    None for a tile without data. An error of a worker is raised here; batches that were not begun are given
    up then.
    """
    run = _Run(scene, grid, workers, batch_size, progress)
    try:
        yield from run.rows()
    finally:
        run.give_up()


class _Run:
    """One scene on its way through the workers."""

    def __init__(self, scene, grid, workers, batch_size, progress):
        self._scene, self._grid, self._workers = scene, grid, workers
        self._batch_size, self._progress = batch_size, progress
        # to be sent: tile row, tile and, unless the workers read it, pixels and valid
        self._pending: list[tuple[int, Tile, tuple[np.ndarray, ...]]] = []
        self._under_way: deque[tuple[Future, list[tuple[int, Tile]]]] = deque()
        self._results: list[list[tuple[Tile, object]]] = [[] for _ in grid.row_starts]
        self._missing = [0] * len(grid.row_starts)  # tiles of each row that wait for their results
        self._handed_out = 0  # rows of tiles

    def rows(self) -> Iterator[list[tuple[Tile, object]]]:
        for index in self._read_rows():
            yield from self._complete(index + 1)
        if self._pending:
            self._send()
        while self._under_way:
            self._collect()
            yield from self._complete(len(self._missing))
        yield from self._complete(len(self._missing))

    def give_up(self) -> None:
        for future, _ in self._under_way:
            future.cancel()

    def _read_rows(self) -> Iterator[int]:
        """Send all tiles on their way, row by row; gives the number of each row that is read."""
        if self._workers.reads_scene:
            for index in range(len(self._missing)):
                for tile in self._grid.row(index):
                    self._add(index, tile)
                yield index
            return
        for strip in read_strips(self._scene, self._grid):
            self._progress.add(seconds_reading=strip.waited)
            index = strip.index
            for tile in self._grid.row(index):
                pixels, valid = strip.cut(tile)
                if valid.any():
                    self._add(index, tile, pixels.copy(), valid.copy())
                else:
                    self._results[index].append((tile, None))
                    self._progress.add(tiles_done=1, tiles_skipped=1)
            del pixels, valid, strip
            yield index

    def _add(self, row: int, tile: Tile, *pixels: np.ndarray) -> None:
        self._pending.append((row, tile, pixels))
        self._missing[row] += 1
        if len(self._pending) == self._batch_size:
            self._send()

    def _send(self) -> None:
        """Send the pending tiles to the workers, and take the oldest results when enough is under way."""
        start = time.perf_counter()
        pixels = [pixels for _, _, pixels in self._pending if pixels]
        batch = TileBatch(
            tiles=tuple(tile for _, tile, _ in self._pending),
            pixels=tuple(one for one, _ in pixels),
            valid=tuple(valid for _, valid in pixels),
        )
        places = [(row, tile) for row, tile, _ in self._pending]
        self._pending = []
        self._under_way.append((self._workers.submit(batch), places))
        self._progress.add(seconds_network=time.perf_counter() - start)
        while self._under_way and (
            len(self._under_way) >= self._workers.in_flight or self._under_way[0][0].done()
        ):
            self._collect()

    def _collect(self) -> None:
        """Wait for the oldest batch under way."""
        start = time.perf_counter()
        future, places = self._under_way.popleft()
        results = future.result()
        if len(results) < len(places):
            raise ValueError(f"Expected the results of {len(places)} tiles, received {len(results)}")
        skipped = 0
        for (row, tile), result in zip(places, results, strict=False):
            skipped += result is None
            self._results[row].append((tile, result))
            self._missing[row] -= 1
        self._progress.add(
            tiles_done=len(places), tiles_skipped=skipped, seconds_network=time.perf_counter() - start
        )

    def _complete(self, read_rows: int) -> Iterator[list[tuple[Tile, object]]]:
        """The rows of tiles that are complete, of those read."""
        while self._handed_out < read_rows and not self._missing[self._handed_out]:
            row, self._results[self._handed_out] = self._results[self._handed_out], []
            self._handed_out += 1
            yield row
