"""From probabilities to classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ann.inference.turned_cells import turned_network


def class_of_probabilities(values: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The class of each cell, (...) int16: 0 is the background.

    values: (..., K) float32. A single one is that of the only class, which is chosen from `threshold` on;
    else the first is the background's, and the most probable class is chosen (of equal ones the first).
    """
    if values.shape[-1] == 1:
        return (values[..., 0] >= threshold).astype(np.int16)
    return values.argmax(axis=-1).astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class CellOutput:
    """What is kept of the probabilities of cells: classes alone take a fraction of the memory and traffic.

    turns: tiles are looked at in all eight flips and turns, so that values are means with deviations behind
    them, see `ann.inference.turned_cells`.
    """

    probabilities: bool
    threshold: float = 0.5
    turns: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """A copy of the values (h, w, K or 2 K) float32, or the classes of the cells (h, w, 1) int16."""
        return values.copy() if self.probabilities else self.classes_of(values)[..., None]

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """The class of each cell, (h, w) int16, of probabilities with or without deviations."""
        return class_of_probabilities(self.values(values), self.threshold)

    def values(self, kept: np.ndarray, *, deviations: bool = False) -> np.ndarray:
        """The probabilities (h, w, K) of what was kept of them, or their deviations."""
        if not self.turns:
            return kept
        count = kept.shape[-1] // 2
        return kept[..., count:] if deviations else kept[..., :count]

    def seen_by(self, network: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """The network, or what asks it about all turns of an image."""
        return turned_network(network) if self.turns else network

    def classes(self, kept: np.ndarray) -> np.ndarray:
        """The class of each cell, (h, w) int16, of what was kept."""
        return self.classes_of(kept) if self.probabilities else kept[..., 0].astype(np.int16)
