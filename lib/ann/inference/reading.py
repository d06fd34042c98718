"""Read a scene strip by strip in a thread of its own, so that reading goes on while the network works."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ann.errors import SceneError
from ann.inference.scene import Scene
from ann.inference.tiles import Tile, TileGrid

STRIPS_IN_MEMORY = 2  # one in use, one being read
ROWS_AT_ONCE = 128  # rows asked of the scene in one call


@dataclass(frozen=True, eq=False, kw_only=True)
class Strip:
    """All pixels that one row of tiles shows.

    pixels: (h, W, C), the scene's type, 0 where not valid; valid: (h, W) bool; index: which row of tiles;
    waited: seconds that the caller waited for it.
    """

    index: int
    pixels: np.ndarray
    valid: np.ndarray
    waited: float

    def cut(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (h, w, C) and valid (h, w) of one tile; views."""
        columns = slice(tile.column, tile.column + tile.width)
        return self.pixels[:, columns], self.valid[:, columns]


def read_strips(scene: Scene, grid: TileGrid) -> Iterator[Strip]:
    """The strips of a scene from top to bottom; each row of it is read once.

    Memory: two strips of the scene's full width. A strip belongs to the caller until it asks for the next.

    Raises:
        SceneError, or what the scene raises: it can't be read.
    """
    ready: queue.Queue = queue.Queue()
    free = threading.Semaphore(STRIPS_IN_MEMORY)
    stopped = threading.Event()

    def read_ahead():
        try:
            with closing(_read_all(scene, grid)) as strips:
                while True:
                    free.acquire()
                    if stopped.is_set():
                        return
                    strip = next(strips, None)
                    ready.put(strip)
                    if strip is None:
                        return
                    del strip
        except Exception as error:  # handed over to the caller's thread, raised there
            ready.put(error)

    thread = threading.Thread(target=read_ahead, name=f"read {scene.name}", daemon=True)
    thread.start()
    try:
        while True:
            start = time.perf_counter()
            item = ready.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            index, pixels, valid = item
            del item
            yield Strip(index=index, pixels=pixels, valid=valid, waited=time.perf_counter() - start)
            del pixels, valid
            free.release()
    finally:
        stopped.set()
        free.release()
        thread.join()


def _read_all(scene: Scene, grid: TileGrid) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    previous: tuple[np.ndarray, np.ndarray] | None = None
    read_to = 0
    for index, start in enumerate(grid.row_starts):
        end = start + grid.tile_height
        pixels, valid = None, np.empty((grid.tile_height, scene.width), dtype=bool)
        for row in range(max(start, read_to), end, ROWS_AT_ONCE):
            rows = Tile(row=row, column=0, height=min(ROWS_AT_ONCE, end - row), width=scene.width)
            part, part_valid = read_tile(scene, rows)
            if pixels is None:
                pixels = np.empty((grid.tile_height, *part.shape[1:]), dtype=part.dtype)
            pixels[row - start : row - start + len(part)] = part
            valid[row - start : row - start + len(part)] = part_valid
        assert pixels is not None, "each strip has rows of its own"
        if previous is not None:
            shared = read_to - start
            pixels[:shared], valid[:shared] = previous[0][-shared:], previous[1][-shared:]
        read_to = end
        previous = (pixels, valid)
        yield index, pixels, valid


def read_tile(scene: Scene, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, C) of the scene's type, 0 without data, and valid (h, w) bool of a part of a scene.

    Pixels that are NaN, infinite or beyond the range of float32, which the network computes in, have no data.

    Raises:
        SceneError, or what the scene raises: it can't be read, or gives something else than that.
    """
    pixels, valid = scene.read(tile.row, tile.column, tile.height, tile.width)
    shape = (tile.height, tile.width, scene.bands)
    if pixels.shape != shape or valid.shape != shape[:2]:
        raise SceneError(
            f"Scene {scene.name} gave pixels of shape {pixels.shape} and valid of shape {valid.shape} "
            f"for rows {tile.row} to {tile.row + tile.height}; expected {shape} and {shape[:2]}."
        )
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            valid = valid & np.isfinite(pixels.astype(np.float32, copy=False)).all(axis=-1)
    if not valid.all():
        pixels = np.where(valid[..., None], pixels, pixels.dtype.type(0))
    return pixels, valid
