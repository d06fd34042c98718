"""Classes told on the nodes of a cluster: what workers do with images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ann.inference.tile_rows import TileBatch
from ann.packages import import_keras
from classifier.inference import class_worker
from classifier.model_file import read_model


@dataclass(frozen=True, kw_only=True)
class ClassWork:
    """What workers do with images, see `ann.inference.workers.TileWork`."""

    batch_size: int
    keras_only: bool = False

    def load(self, path: Path, threads: int) -> tuple[Callable[[TileBatch], Sequence], str]:
        """See `TileWork`."""
        import_keras()
        from classifier.prediction import fastest_network

        network, runtime = fastest_network(read_model(path), keras_only=self.keras_only, threads=threads)
        return class_worker(network, self.batch_size), runtime

    def unpack(self, made: np.ndarray) -> np.ndarray:
        """The probabilities of an image, which travel as they are."""
        return made
