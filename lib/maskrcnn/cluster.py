"""Detection on the nodes of a cluster: what workers do with tiles, and how instances travel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ann.data.outlines.shapes import PackedMask
from ann.inference.tile_rows import TileBatch
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.instances import Certainty, Instance
from maskrcnn.instances.pipeline import DetectionSettings, network_finder
from maskrcnn.model_file import read_model


@dataclass(frozen=True, kw_only=True)
class PackedInstance:
    """An instance on its way home: some hundred bytes."""

    mask: PackedMask
    class_id: int
    score: float
    certainty: Certainty | None = None

    @classmethod
    def pack(cls, one: Instance) -> PackedInstance:
        """Compress the mask of an instance."""
        mask = PackedMask.pack(one.mask)
        return cls(mask=mask, class_id=one.class_id, score=one.score, certainty=one.certainty)

    def unpack(self) -> Instance:
        """The instance that was packed."""
        mask = self.mask.unpack()
        return Instance(mask=mask, class_id=self.class_id, score=self.score, certainty=self.certainty)


@dataclass(frozen=True, kw_only=True)
class DetectionWork:
    """What workers do with tiles, see `ann.inference.workers.TileWork`.

    config: with the tile size to use; keras_only, precision: see `load_detectors`.
    """

    config: MaskRCNNConfig
    settings: DetectionSettings
    keras_only: bool = False
    precision: str = "auto"

    def load(self, path: Path, threads: int) -> tuple[Callable[[TileBatch], Sequence], str]:
        """See `TileWork`."""
        from maskrcnn.detector import load_detectors, within_memory

        (detector,), runtime = load_detectors(
            read_model(path),
            self.config,
            keras_only=self.keras_only,
            threads=threads,
            precision=self.precision,
        )
        detector = within_memory(functools.partial(detector, confidence=self.settings.lowest_score))
        find = network_finder(detector, self.settings)

        def work(batch: TileBatch) -> list[tuple[PackedInstance, ...]]:
            return [tuple(PackedInstance.pack(one) for one in found) for found in find(batch)]

        return work, runtime

    def unpack(self, made: Sequence[PackedInstance]) -> list[Instance]:
        """The instances of a tile."""
        return [one.unpack() for one in made]
