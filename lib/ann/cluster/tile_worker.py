"""What runs on a node for detection: a process that has the model loaded and takes batches of tiles."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ann.data.outlines.shapes import PackedMask
from ann.inference.files import FileScene
from ann.inference.pipeline import DetectionSettings, TileBatch, network_finder
from ann.inference.reading import read_tile
from ann.inference.resample import ResampledScene
from ann.weights import read_model
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.instances import Instance


@dataclass(frozen=True, kw_only=True)
class SceneFile:
    """A scene that workers read: an image file under the same path on all nodes.

    factor: how many times larger the pixels to detect in are than the file's, None: as large.
    """

    path: str
    factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class PackedInstance:
    """An instance on its way home: some hundred bytes."""

    mask: PackedMask
    class_id: int
    score: float

    @classmethod
    def pack(cls, one: Instance) -> PackedInstance:
        """Compress the mask of an instance."""
        return cls(mask=PackedMask.pack(one.mask), class_id=one.class_id, score=one.score)

    def unpack(self) -> Instance:
        """The instance that was packed."""
        return Instance(mask=self.mask.unpack(), class_id=self.class_id, score=self.score)


class TileWorker:
    """Loads the model once, then detects in batch after batch; made an actor by `detection`."""

    def __init__(self, settings: DetectionSettings, threads: int):
        self._settings = settings
        self._threads = threads
        self._scene: tuple[SceneFile, object] | None = None

    def load(self, model: bytes, config: MaskRCNNConfig, keras_only: bool) -> str:
        """Build the network from a model file's content; returns what runs it."""
        if self._threads:  # before Keras is imported
            for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
                os.environ[name] = str(self._threads)
        from maskrcnn.detector import load_detectors

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.h5"
            path.write_bytes(model)
            (detector,), runtime = load_detectors(
                read_model(path), config, keras_only=keras_only, threads=self._threads
            )
        detector = functools.partial(detector, confidence=self._settings.confidence)
        self._find = network_finder(detector, self._settings)
        return runtime

    def process(self) -> int:
        """The number of this process, for tests that end it."""
        return os.getpid()

    def detect(self, batch: TileBatch, scene: SceneFile | None) -> list[tuple[PackedInstance, ...] | None]:
        """The instances of each tile, None for one without data.

        scene: where to read the pixels, None if the batch has them.

        Raises:
            SceneError: the scene can't be read.
        """
        if scene is None:
            return self._pack(self._find(batch))
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
            for index, instances in zip(shown, self._pack(self._find(part)), strict=True):
                found[index] = instances
        return found

    def _pack(self, found: Sequence[Sequence[Instance]]) -> list[tuple[PackedInstance, ...]]:
        return [tuple(PackedInstance.pack(one) for one in instances) for instances in found]

    def _open(self, scene: SceneFile):
        """The scene, kept open until another one is asked for."""
        if self._scene is None or self._scene[0] != scene:
            opened = FileScene(scene.path)
            opened = opened if scene.factor is None else ResampledScene(opened, scene.factor)
            self._scene = (scene, opened)
        return self._scene[1]
