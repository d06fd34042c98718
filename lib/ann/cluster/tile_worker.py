"""What runs on a node: a process that has the model loaded and takes batches of tiles."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ann.inference.cells import PaddedScene, Padding
from ann.inference.files import FileScene
from ann.inference.reading import read_tile
from ann.inference.resample import ResampledScene
from ann.inference.tile_rows import TileBatch


@dataclass(frozen=True, kw_only=True)
class SceneFile:
    """A scene that workers read: an image file under the same path on all nodes.

    factor: how many times larger the pixels to detect in are than the file's, None: as large.
    bands: their numbers in the file, see `FileScene`.
    padding: around what is seen so, None: none.
    """

    path: str
    factor: float | None = None
    bands: tuple[int, ...] | None = None
    padding: Padding | None = None


class TileWorker:
    """Loads the model once, then works on batch after batch; made an actor by `tiles`.

    `detect` is called from several threads: one reads the tiles of its batch while the network is at work on
    another's. The network is always called by the same thread, as some libraries keep what they prepared by
    thread.
    work: see `workers.TileWork`; threads: of the network, 0 as many as it likes.
    """

    def __init__(self, work, threads: int):
        self._work = work
        self._threads = threads
        self._scene: tuple[SceneFile, object] | None = None
        self._reading = threading.Lock()
        self._network = ThreadPoolExecutor(1, "network")

    def load(self, model: bytes) -> str:
        """Build the network from a model file's content; returns what runs it."""
        if self._threads:  # before Keras is imported
            for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
                os.environ[name] = str(self._threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.h5"
            path.write_bytes(model)
            self._make, runtime = self._network.submit(self._work.load, path, self._threads).result()
        return runtime

    def process(self) -> int:
        """The number of this process, for tests that end it."""
        return os.getpid()

    def detect(self, batch: TileBatch, scene: SceneFile | None) -> list:
        """What is made of each tile, None for one without data.

        scene: where to read the pixels, None if the batch has them.

        Raises:
            SceneError: the scene can't be read.
        """
        if scene is None:
            return self._made(batch)
        with self._reading:
            read = [read_tile(self._open(scene), tile) for tile in batch.tiles]
        shown = [index for index, (_, valid) in enumerate(read) if valid.any()]
        found: list = [None] * len(read)
        if shown:
            part = replace(
                batch,
                tiles=tuple(batch.tiles[index] for index in shown),
                pixels=tuple(read[index][0] for index in shown),
                valid=tuple(read[index][1] for index in shown),
            )
            for index, made in zip(shown, self._made(part), strict=False):
                found[index] = made
        return found

    def _made(self, batch: TileBatch) -> list:
        return self._network.submit(lambda: list(self._make(batch))).result()

    def _open(self, scene: SceneFile):
        """The scene, kept open until another one is asked for."""
        if self._scene is None or self._scene[0] != scene:
            opened = FileScene(scene.path, scene.bands)
            opened = opened if scene.factor is None else ResampledScene(opened, scene.factor)
            opened = opened if scene.padding is None else PaddedScene(opened, scene.padding)
            self._scene = (scene, opened)
        return self._scene[1]
