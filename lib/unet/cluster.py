"""Prediction on the nodes of a cluster: what workers do with tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ann.inference.cells import CellSettings, cell_worker
from ann.inference.tile_rows import TileBatch
from ann.packages import import_keras
from unet.classes import CellOutput
from unet.model_file import read_model


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """What workers do with tiles, see `ann.inference.workers.TileWork`."""

    settings: CellSettings
    output: CellOutput
    keras_only: bool = False

    def load(self, path: Path, threads: int) -> tuple[Callable[[TileBatch], Sequence], str]:
        """See `TileWork`."""
        import_keras()
        from unet.prediction import fastest_network, load_network

        network = load_network(read_model(path))
        function, runtime = fastest_network(network, keras_only=self.keras_only, threads=threads)
        return cell_worker(self.output.seen_by(function), self.settings, self.output), runtime

    def unpack(self, made: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What was made of a tile, which travels as it is."""
        return made
