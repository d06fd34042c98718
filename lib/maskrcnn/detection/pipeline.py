"""Detect in a scene of any size: read, cut, detect, merge and hand out finished rows, all at the same time.

Memory holds two strips of the scene (tile height x scene width), one batch, and the objects that rows not yet
handed out show, packed. It does not grow with the scene's height, but for objects as high as that.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.data.scaling import scale_pixels
from maskrcnn.detection.instances import Instance, TileDetections, instances_in_tile
from maskrcnn.detection.merge import Recogniser
from maskrcnn.detection.overlaps import DecidedInstance, OverlapDecision
from maskrcnn.detection.reading import read_strips
from maskrcnn.detection.scene import Scene
from maskrcnn.detection.shapes import draw
from maskrcnn.detection.tiles import Tile, TileGrid, cut_tiles
from maskrcnn.errors import SceneError


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

    def __post_init__(self):
        if min(self.batch_size, self.block_rows, self.minimum_area) < 1:
            raise ValueError(
                "Expected batch_size, block_rows and minimum_area of at least 1, received "
                f"{self.batch_size}, {self.block_rows} and {self.minimum_area}"
            )
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"Expected a confidence of 0 to 1, received {self.confidence}")

    @classmethod
    def for_model(cls, config: ModelConfig, **changes) -> DetectionSettings:
        """The settings that suit a model: its tile size and scaling; `changes` override fields."""
        values = {
            "band_mean": config.band_mean,
            "band_scale": config.band_scale,
            "tile_shape": config.image_shape,
            "overlap": min(config.image_shape) // 8,
        }
        return cls(**(values | changes))


@dataclass(frozen=True, eq=False, kw_only=True)
class TileBatch:
    """Tiles to detect in. images: (B, H, W, C) float32, scaled; windows: (B, 4) float32, (y1, x1, y2, x2):
    the part of each image that shows the scene; tiles, valid ((h, w) bool each): fewer than B at the end.
    """

    tiles: tuple[Tile, ...]
    images: np.ndarray
    windows: np.ndarray
    valid: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class FinishedInstance:
    """An object of the scene. cells: its area in pixels; row, column: its pixel nearest to its middle."""

    id: int  # counts from 1 in reading order of the first pixels
    class_id: int
    score: float
    cells: int
    row: int
    column: int


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
        detections = detector(batch.images, batch.windows)
        return [
            instances_in_tile(found, tile, valid, settings.confidence)
            for found, tile, valid in zip(detections, batch.tiles, batch.valid, strict=False)
        ]

    return find


def find_in_scene(
    scene: Scene, finder: Finder, settings: DetectionSettings, report: Report | None = None
) -> Iterator[Block]:
    """As `detect_scene`, with any function that finds the instances of a batch of tiles, in scene pixels.

    A finder may give an object that the tile's border cuts into several pieces as one instance.
    """
    if scene.bands != len(settings.band_mean):
        raise SceneError(
            f"Scene {scene.name} has {scene.bands} bands, the model was trained on "
            f"{len(settings.band_mean)}. Give the same bands in the same order as for training."
        )
    grid = cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap)
    return _Run(scene, finder, settings, grid, report).blocks()


class _Run:
    """One scene on its way through the pipeline."""

    def __init__(self, scene: Scene, finder: Finder, settings: DetectionSettings, grid: TileGrid, report):
        self._scene, self._finder, self._settings, self._grid = scene, finder, settings, grid
        self._report = report
        self._recogniser = Recogniser(grid)
        self._overlaps = OverlapDecision(settings.minimum_area)
        self._rows = RowWriter(scene.width, settings.block_rows)
        self._pending: list[tuple[int, Tile, np.ndarray, np.ndarray]] = []  # tile row, tile, image, valid
        self._found: list[list[tuple[Tile, Sequence[Instance]]]] = [[] for _ in grid.row_starts]
        self._missing = [0] * len(grid.row_starts)  # tiles of each row that wait for the network
        self._merged = 0  # rows of tiles
        self._progress = Progress(tiles_total=len(grid))

    def blocks(self) -> Iterator[Block]:
        for strip in read_strips(self._scene, self._grid):
            self._advance(seconds_reading=strip.waited)
            for tile in self._grid.row(strip.index):
                pixels, valid = strip.cut(tile)
                if not valid.any():
                    self._advance(tiles_done=1, tiles_skipped=1)
                    continue
                self._pending.append((strip.index, tile, self._scaled(pixels), valid.copy()))
                self._missing[strip.index] += 1
                if len(self._pending) == self._settings.batch_size:
                    self._detect()
            del pixels, valid
            read_rows = strip.index + 1
            del strip
            yield from self._merge(read_rows)
        if self._pending:
            self._detect()
        yield from self._merge(len(self._missing))

    def _scaled(self, pixels: np.ndarray) -> np.ndarray:
        """One tile's pixels padded with raw zeros and scaled: (H, W, C) float32."""
        height, width = self._settings.tile_shape
        padding = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
        if any(after for _, after in padding):
            pixels = np.pad(pixels, padding)
        return scale_pixels(pixels, self._settings.band_mean, self._settings.band_scale)

    def _detect(self) -> None:
        """Send the pending tiles through the network; the batch always has the same shape."""
        start = time.perf_counter()
        size = self._settings.batch_size
        images = np.zeros((size, *self._settings.tile_shape, self._scene.bands), dtype=np.float32)
        windows = np.tile(np.array([0, 0, *self._settings.tile_shape], dtype=np.float32), (size, 1))
        for index, (_, tile, image, _) in enumerate(self._pending):
            images[index] = image
            windows[index, 2:] = tile.height, tile.width
        batch = TileBatch(
            tiles=tuple(tile for _, tile, _, _ in self._pending),
            images=images,
            windows=windows,
            valid=tuple(valid for _, _, _, valid in self._pending),
        )
        found = self._finder(batch)
        if len(found) < len(batch.tiles):
            raise ValueError(f"Expected the instances of {len(batch.tiles)} tiles, received {len(found)}")
        for (row, tile, _, _), instances in zip(self._pending, found, strict=False):
            self._found[row].append((tile, instances))
            self._missing[row] -= 1
        self._advance(tiles_done=len(batch.tiles), seconds_network=time.perf_counter() - start)
        self._pending = []

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
                    )
                    for number, instance in numbered
                ),
            )
            self._row = stop
            yield block
