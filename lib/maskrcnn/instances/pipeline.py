"""Detect in a scene of any size: read, cut, detect, merge and hand out finished rows, all at the same time.

Memory holds two strips of the scene (tile height x scene width), the batches under way (one, but for
workers), and the objects that rows not yet handed out show, packed. It does not grow with the scene's height,
but for objects as high as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ann.inference.scene import Scene
from ann.inference.tile_rows import (
    Here,
    NetworkInput,
    ProgressCount,
    Report,
    TileBatch,
    Workers,
    check_bands,
    tile_rows,
)
from ann.inference.tile_rows import network_input as plain_input
from ann.inference.tiles import Tile, TileGrid, cut_tiles
from maskrcnn.config import LEGACY, MaskRCNNConfig, Variant
from maskrcnn.instances.framing import frame_shape, network_view
from maskrcnn.instances.instances import (
    Certainty,
    Detections,
    Instance,
    TileDetections,
    instances_in_tile,
)
from maskrcnn.instances.merge import Recogniser
from maskrcnn.instances.overlaps import DecidedInstance, OverlapDecision
from maskrcnn.instances.shapes import Shape, draw
from maskrcnn.instances.turns import Finder, turned_finder

DOUBTFUL_SCORE = 0.1  # what scores less is no sign of an object


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How to detect. band_mean and band_scale as in the model's description."""

    band_mean: tuple[float, ...]
    band_scale: tuple[float, ...]
    tile_shape: tuple[int, int] = (1024, 1024)  # (height, width), pixels: the network's input
    overlap: int = 128  # pixels shared by neighbouring tiles; best as large as most objects are
    batch_size: int = 1  # tiles given to the network at once
    confidence: float = 0.7  # lowest score that counts
    turns: bool = False  # look at each tile in all eight flips and turns, see `turns`
    find_doubtful: bool = False  # find what is below the confidence too, for `uncertain`
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
        if self.turns and self.tile_shape[0] != self.tile_shape[1]:
            raise ValueError(f"Expected square tiles to turn, received {self.tile_shape}")

    @property
    def lowest_score(self) -> float:
        """The lowest score that a finder is asked for; objects are those from the confidence on."""
        doubtful = self.turns or self.find_doubtful
        return min(self.confidence, DOUBTFUL_SCORE) if doubtful else self.confidence

    @property
    def given(self) -> NetworkInput:
        """What the network is given, whatever becomes of it."""
        return NetworkInput(
            tile_shape=self.tile_shape,
            band_mean=self.band_mean,
            band_scale=self.band_scale,
            batch_size=self.batch_size,
        )

    @classmethod
    def for_model(cls, config: MaskRCNNConfig, **changes) -> DetectionSettings:
        """The settings that suit a model, with tiles as in training; `changes` override fields."""
        values = {
            "band_mean": config.band_mean,
            "band_scale": config.band_scale,
            "tile_shape": config.image_shape,
            "variant": config.variant,
            "overlap": min(config.image_shape) // 8,
        }
        return cls(**(values | changes))


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
    certainty: Certainty | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Finished rows of the scene. instance_ids: (h, W) int32, 0 = none; instances: those that begin in it."""

    row: int
    instance_ids: np.ndarray
    instances: tuple[FinishedInstance, ...]


Detector = Callable[[np.ndarray, np.ndarray], Sequence[TileDetections]]
Watcher = Callable[[Tile, Sequence[Instance]], None]


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
    """A finder that asks a network and draws its masks, with the settings' turns."""
    ask, draw = ask_network(detector, settings), mask_drawer(settings)

    def find(batch: TileBatch) -> list[list[Instance]]:
        return draw(batch, ask(batch))

    return turned_finder(find, settings.confidence) if settings.turns else find


def ask_network(detector: Detector, settings: DetectionSettings) -> Callable[[TileBatch], Sequence]:
    """A batch of tiles -> for each of them what the network found, in its own pixels."""

    def ask(batch: TileBatch) -> list[TileDetections]:
        images, windows = network_input(batch, settings)
        return [
            in_tile(found, window, tile, settings)
            for found, window, tile in zip(detector(images, windows), windows, batch.tiles, strict=False)
        ]

    return ask


def mask_drawer(settings: DetectionSettings) -> Callable[[TileBatch, Sequence], list[list[Instance]]]:
    """A batch of tiles, what was found in them -> the instances, with their masks in pixels of the scene."""

    def draw(batch: TileBatch, found: Sequence[TileDetections]) -> list[list[Instance]]:
        return [
            instances_in_tile(one, tile, valid, settings.lowest_score, settings.variant.pasting)
            for one, tile, valid in zip(found, batch.tiles, batch.valid, strict=True)
        ]

    return draw


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

    Returns: images (B, H, W, C) float32: padded with raw zeros, then scaled (but see `framing`); windows (B,
    4) float32, (y1, x1, y2, x2): the part of each image that shows the scene.
    """
    if settings.variant.pixels:
        return _framed_input(batch, settings)
    return plain_input(batch, settings.given)


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
    watch: Watcher | None = None,
) -> Iterator[Block]:
    """As `find_in_scene`, by workers that have several batches under way. The result is the same.

    shared: boxes (y1, x1, y2, x2), scene pixels, where other scenes look too (see `seams`). Objects in them
    come with their shape, in as many parts as the scene shows, however small.
    watch: is told of all that was found in each tile, also below the confidence.

    An error of a worker is raised here; batches that were not begun are given up then.
    """
    check_bands(scene, settings.given)
    grid = cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap)
    progress = ProgressCount(len(grid), report)
    rows = tile_rows(scene, grid, workers, settings.batch_size, progress)
    return _blocks(_confident(rows, settings.confidence, watch), settings, grid, progress, shared)


def _confident(
    rows: Iterable[Sequence[tuple[Tile, object]]], confidence: float, watch: Watcher | None
) -> Iterator[list[tuple[Tile, Sequence[Instance]]]]:
    """The rows of tiles with the instances that are certain enough, after `watch` has seen all."""
    for row in rows:
        kept = []
        for tile, found in row:
            instances = found or ()
            if watch is not None:
                watch(tile, instances)
            kept.append((tile, [one for one in instances if one.score >= confidence]))
        yield kept


def _blocks(
    tiles: Iterable[Sequence[tuple[Tile, Sequence[Instance]]]],
    settings: DetectionSettings,
    grid: TileGrid,
    progress: ProgressCount,
    shared: Sequence[Sequence[int]],
) -> Iterator[Block]:
    """Merge the rows of tiles as they come, and hand out the rows of the scene that are final."""
    recogniser = Recogniser(grid)
    overlaps = OverlapDecision(settings.minimum_area, shared)
    rows = RowWriter(grid.scene_width, settings.block_rows)
    for index, found in enumerate(tiles):
        start = time.perf_counter()
        settled = recogniser.add_row(found)
        open_sightings = recogniser.open_sightings
        rows.add(overlaps.add(settled, open_sightings))
        for block in rows.blocks(overlaps.final_rows(grid.next_start(index), open_sightings)):
            progress.add(instances=len(block.instances), seconds_merging=time.perf_counter() - start)
            start = time.perf_counter()
            yield block
            progress.add(seconds_writing=time.perf_counter() - start)
            start = time.perf_counter()
        progress.add(seconds_merging=time.perf_counter() - start)


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
                        certainty=instance.certainty,
                    )
                    for number, instance in numbered
                ),
            )
            self._row = stop
            yield block
