"""Detect in a scene of any size: read, cut, detect, merge and hand out finished rows, all at the same time.

Memory holds two strips of the scene (tile height x scene width), the batches under way (one, but for
workers), and the objects that rows not yet handed out show, packed. It does not grow with the scene's height,
but for objects as high as that.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ann.data.samples.scaling import scale_pixels
from ann.errors import SceneError
from ann.inference.reading import read_strips
from ann.inference.scene import Scene
from ann.inference.tiles import Tile, TileGrid, cut_tiles
from maskrcnn.config import LEGACY, MaskRCNNConfig, Variant
from maskrcnn.instances.framing import frame_shape, network_view
from maskrcnn.instances.instances import Detections, Instance, TileDetections, instances_in_tile
from maskrcnn.instances.merge import Recogniser
from maskrcnn.instances.overlaps import DecidedInstance, OverlapDecision
from maskrcnn.instances.shapes import Shape, draw


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How to detect. band_mean and band_scale as in the model's description."""

    band_mean: tuple[float, ...]
    band_scale: tuple[float, ...]
    tile_shape: tuple[int, int] = (1024, 1024)  # (height, width), pixels: the network's input
    overlap: int = 128  # pixels shared by neighbouring tiles; best as large as most objects are
    batch_size: int = 1  # tiles given to the network at once
    confidence: float = 0.7  # lowest score that counts
    minimum_area: int = 1  # cells; smaller objects are left out at the end
    block_rows: int = 256  # rows handed out at once, at most
    variant: Variant = LEGACY  # of the model: how it sees a tile, and what its masks mean

    def __post_init__(self):
        if min(self.batch_size, self.block_rows, self.minimum_area) < 1:
            raise ValueError(
                "Expected batch_size, block_rows and minimum_area of at least 1, received "
                f"{self.batch_size}, {self.block_rows} and {self.minimum_area}"
            )
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"Expected a confidence of 0 to 1, received {self.confidence}")

    @classmethod
    def for_model(cls, config: MaskRCNNConfig, **changes) -> DetectionSettings:
        """The settings that suit a model: its tile size and scaling; `changes` override fields."""
        values = {
            "band_mean": config.band_mean,
            "band_scale": config.band_scale,
            "tile_shape": config.image_shape,
            "variant": config.variant,
            "overlap": min(config.image_shape) // 8,
        }
        return cls(**(values | changes))


@dataclass(frozen=True, eq=False, kw_only=True)
class TileBatch:
    """Tiles to detect in; at most as many as the settings' batch size.

    pixels: (h, w, C) of the scene's type, 0 without data; valid: (h, w) bool. Both are empty for workers that
    read the scene themselves.
    """

    tiles: tuple[Tile, ...]
    pixels: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class FinishedInstance:
    """An object of the scene. cells: its area in pixels; row, column: its pixel nearest to its middle.

    shape: its pixels, if other scenes show its ground too, so that it may be a part of a larger object.
    """

    id: int  # counts from 1 in reading order of the first pixels
    class_id: int
    score: float
    cells: int
    row: int
    column: int
    shape: Shape | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Finished rows of the scene. instance_ids: (h, W) int32, 0 = none; instances: those that begin in it."""

    row: int
    instance_ids: np.ndarray
    instances: tuple[FinishedInstance, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is, and where the time went. Skipped tiles (without data) count as done.

    seconds_reading: waited for the reader; seconds_writing: spent by the caller with the blocks.
    """

    tiles_total: int
    tiles_done: int = 0
    tiles_skipped: int = 0
    instances: int = 0
    seconds_reading: float = 0.0
    seconds_network: float = 0.0
    seconds_merging: float = 0.0
    seconds_writing: float = 0.0


Detector = Callable[[np.ndarray, np.ndarray], Sequence[TileDetections]]
Finder = Callable[[TileBatch], Sequence[Sequence[Instance]]]
Report = Callable[[Progress], None]


class Workers(Protocol):
    """Find the instances of several batches at a time, in other threads, processes or machines.

    in_flight: batches that may be under way at once; reads_scene: they read the scene's pixels themselves.
    """

    in_flight: int
    reads_scene: bool

    def submit(self, batch: TileBatch) -> Future:
        """Start on a batch. Its result: for each tile its instances in scene pixels, None without data."""


def detect_scene(
    scene: Scene, detector: Detector, settings: DetectionSettings, report: Report | None = None
) -> Iterator[Block]:
    """Objects of a scene, as blocks of finished rows from top to bottom; each row comes once.

    detector: (images (B, H, W, C) float32 scaled, windows (B, 4) float32 pixels) -> B TileDetections.
    report: called with the progress whenever it changes, at least once a batch and once a block.

    The result depends neither on the batch size nor on the block size.

    Raises:
        SceneError: the scene can't be read, or has another number of bands than the settings.
        ValueError: the overlap does not fit the tile size.
    """
    return find_in_scene(scene, network_finder(detector, settings), settings, report)


def network_finder(detector: Detector, settings: DetectionSettings) -> Finder:
    """A finder that asks a network and draws its masks."""

    def find(batch: TileBatch) -> list[list[Instance]]:
        images, windows = network_input(batch, settings)
        detections = detector(images, windows)
        return [
            instances_in_tile(
                in_tile(found, window, tile, settings),
                tile,
                valid,
                settings.confidence,
                settings.variant.pasting,
            )
            for found, window, tile, valid in zip(detections, windows, batch.tiles, batch.valid, strict=False)
        ]

    return find


def in_tile(found: TileDetections, window, tile: Tile, settings: DetectionSettings) -> TileDetections:
    """Detections in pixels of the tile, of those in pixels of the resized image that `window` encloses."""
    if not settings.variant.resizes:
        return found
    factors = np.float32([tile.height, tile.width] * 2) / np.float32([*window[2:], *window[2:]])
    return Detections(
        boxes=found.boxes * factors, class_ids=found.class_ids, scores=found.scores, masks=found.masks
    )


def network_input(batch: TileBatch, settings: DetectionSettings) -> tuple[np.ndarray, np.ndarray]:
    """What the network gets, of the same shape for all tiles of a scene: free places are zeros.

    Returns: images (B, H, W, C) float32: padded with raw zeros, then scaled (but see `framing`); windows
    (B, 4)
    float32, (y1, x1, y2, x2): the part of each image that shows the scene.
    """
    if settings.variant.pixels:
        return _framed_input(batch, settings)
    height, width = settings.tile_shape
    images = np.zeros((settings.batch_size, height, width, len(settings.band_mean)), dtype=np.float32)
    windows = np.tile(np.array([0, 0, height, width], dtype=np.float32), (settings.batch_size, 1))
    for index, (tile, pixels) in enumerate(zip(batch.tiles, batch.pixels, strict=True)):
        padding = ((0, height - tile.height), (0, width - tile.width), (0, 0))
        if any(after for _, after in padding):
            pixels = np.pad(pixels, padding)
        images[index] = scale_pixels(pixels, settings.band_mean, settings.band_scale)
        windows[index, 2:] = tile.height, tile.width
    return images, windows


def _framed_input(batch: TileBatch, settings: DetectionSettings) -> tuple[np.ndarray, np.ndarray]:
    """`network_input` of a variant that pads what it has scaled."""
    scaling = (settings.variant, settings.band_mean, settings.band_scale)
    views = [
        network_view(pixels[: tile.height, : tile.width], *scaling)
        for tile, pixels in zip(batch.tiles, batch.pixels, strict=True)
    ]
    height, width = frame_shape(tuple(max(view.shape[axis] for view in views) for axis in (0, 1)))
    images = np.zeros((settings.batch_size, height, width, len(settings.band_mean)), dtype=np.float32)
    windows = np.tile(np.array([0, 0, height, width], dtype=np.float32), (settings.batch_size, 1))
    for index, view in enumerate(views):
        images[index, : view.shape[0], : view.shape[1]] = view
        windows[index, 2:] = view.shape[:2]
    return images, windows


def find_in_scene(
    scene: Scene, finder: Finder, settings: DetectionSettings, report: Report | None = None
) -> Iterator[Block]:
    """As `detect_scene`, with any function that finds the instances of a batch of tiles, in scene pixels.

    A finder may give an object that the tile's border cuts into several pieces as one instance.
    """
    return find_by_workers(scene, Here(finder), settings, report)


def find_by_workers(
    scene: Scene,
    workers: Workers,
    settings: DetectionSettings,
    report: Report | None = None,
    shared: Sequence[Sequence[int]] = (),
) -> Iterator[Block]:
    """As `find_in_scene`, by workers that have several batches under way. The result is the same.

    shared: boxes (y1, x1, y2, x2), scene pixels, where other scenes look too (see `seams`). Objects in them
    come with their shape, in as many parts as the scene shows, however small.

    An error of a worker is raised here; batches that were not begun are given up then.
    """
    if scene.bands != len(settings.band_mean):
        raise SceneError(
            f"Scene {scene.name} has {scene.bands} bands, the model was trained on "
            f"{len(settings.band_mean)}. Give the same bands in the same order as for training."
        )
    grid = cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap)
    return _Run(scene, workers, settings, grid, report, shared).blocks()


class Here:
    """A finder as `Workers`: it does its work at once, in this thread."""

    in_flight = 1
    reads_scene = False

    def __init__(self, finder: Finder):
        self._finder = finder

    def submit(self, batch: TileBatch) -> Future:
        future: Future = Future()
        future.set_result(self._finder(batch))
        return future


class _Run:
    """One scene on its way through the pipeline."""

    def __init__(
        self, scene: Scene, workers: Workers, settings: DetectionSettings, grid: TileGrid, report, shared
    ):
        self._scene, self._workers, self._settings, self._grid = scene, workers, settings, grid
        self._report = report
        self._recogniser = Recogniser(grid)
        self._overlaps = OverlapDecision(settings.minimum_area, shared)
        self._rows = RowWriter(scene.width, settings.block_rows)
        # to be sent: tile row, tile and, unless the workers read it, pixels and valid
        self._pending: list[tuple[int, Tile, tuple[np.ndarray, ...]]] = []
        self._under_way: deque[tuple[Future, list[tuple[int, Tile]]]] = deque()
        self._found: list[list[tuple[Tile, Sequence[Instance]]]] = [[] for _ in grid.row_starts]
        self._missing = [0] * len(grid.row_starts)  # tiles of each row that wait for the network
        self._merged = 0  # rows of tiles
        self._progress = Progress(tiles_total=len(grid))

    def blocks(self) -> Iterator[Block]:
        try:
            for index in self._read_rows():
                yield from self._merge(index + 1)
            if self._pending:
                self._detect()
            while self._under_way:
                self._collect()
                yield from self._merge(len(self._missing))
            yield from self._merge(len(self._missing))
        finally:
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
            self._advance(seconds_reading=strip.waited)
            index = strip.index
            for tile in self._grid.row(index):
                pixels, valid = strip.cut(tile)
                if valid.any():
                    self._add(index, tile, pixels.copy(), valid.copy())
                else:
                    self._advance(tiles_done=1, tiles_skipped=1)
            del pixels, valid, strip
            yield index

    def _add(self, row: int, tile: Tile, *pixels: np.ndarray) -> None:
        self._pending.append((row, tile, pixels))
        self._missing[row] += 1
        if len(self._pending) == self._settings.batch_size:
            self._detect()

    def _detect(self) -> None:
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
        self._advance(seconds_network=time.perf_counter() - start)
        while self._under_way and (
            len(self._under_way) >= self._workers.in_flight or self._under_way[0][0].done()
        ):
            self._collect()

    def _collect(self) -> None:
        """Wait for the oldest batch under way."""
        start = time.perf_counter()
        future, places = self._under_way.popleft()
        found = future.result()
        if len(found) < len(places):
            raise ValueError(f"Expected the instances of {len(places)} tiles, received {len(found)}")
        skipped = 0
        for (row, tile), instances in zip(places, found, strict=False):
            skipped += instances is None
            self._found[row].append((tile, instances or ()))
            self._missing[row] -= 1
        self._advance(
            tiles_done=len(places), tiles_skipped=skipped, seconds_network=time.perf_counter() - start
        )

    def _merge(self, read_rows: int) -> Iterator[Block]:
        """Merge the rows of tiles that are complete, of those read; hand out the rows that are final."""
        while self._merged < read_rows and not self._missing[self._merged]:
            start = time.perf_counter()
            found, self._found[self._merged] = self._found[self._merged], []
            settled = self._recogniser.add_row(found)
            open_sightings = self._recogniser.open_sightings
            self._rows.add(self._overlaps.add(settled, open_sightings))
            final = self._overlaps.final_rows(self._grid.next_start(self._merged), open_sightings)
            self._merged += 1
            for block in self._rows.blocks(final):
                self._advance(instances=len(block.instances), seconds_merging=time.perf_counter() - start)
                start = time.perf_counter()
                yield block
                self._advance(seconds_writing=time.perf_counter() - start)
                start = time.perf_counter()
            self._advance(seconds_merging=time.perf_counter() - start)

    def _advance(self, **more: float) -> None:
        changes = {name: getattr(self._progress, name) + value for name, value in more.items()}
        self._progress = dataclasses.replace(self._progress, **changes)
        if self._report is not None:
            self._report(self._progress)


class RowWriter:
    """Draws decided instances into rows, from top to bottom, and numbers them in reading order."""

    def __init__(self, width: int, block_rows: int):
        self._width = width
        self._block_rows = block_rows
        self._row = 0  # first row not handed out
        self._count = 0
        self._coming: list[DecidedInstance] = []  # begin below the rows handed out
        self._standing: list[tuple[int, DecidedInstance]] = []  # with id; begun and not ended

    def add(self, instances: Sequence[DecidedInstance]) -> None:
        """Take instances; each of them begins in a row that was not handed out yet."""
        self._coming.extend(instances)

    def blocks(self, end: int) -> Iterator[Block]:
        """Hand out all rows up to `end`."""
        self._coming.sort(key=lambda one: one.first)
        while self._row < end:
            stop = min(end, self._row + self._block_rows)
            begun = 0
            while begun < len(self._coming) and self._coming[begun].first[0] < stop:
                begun += 1
            beginning, self._coming = self._coming[:begun], self._coming[begun:]
            numbered = list(enumerate(beginning, start=self._count + 1))
            self._count += begun
            self._standing += numbered
            box = (self._row, 0, stop, self._width)
            ids = np.zeros((stop - self._row, self._width), dtype=np.int32)
            for number, instance in self._standing:
                for piece in instance.shape.touching(box):
                    draw(ids, box, piece, number)
            self._standing = [one for one in self._standing if one[1].shape.box[2] > stop]
            block = Block(
                row=self._row,
                instance_ids=ids,
                instances=tuple(
                    FinishedInstance(
                        id=number,
                        class_id=instance.class_id,
                        score=instance.score,
                        cells=instance.shape.area,
                        row=instance.point[0],
                        column=instance.point[1],
                        shape=instance.shape if instance.shared else None,
                    )
                    for number, instance in numbered
                ),
            )
            self._row = stop
            yield block
