"""From probabilities to classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    """What is kept of the probabilities of cells: classes alone take a fraction of the memory and traffic."""

    probabilities: bool
    threshold: float = 0.5

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """A copy of probabilities (h, w, K) float32, or the classes of the cells (h, w, 1) int16."""
        return values.copy() if self.probabilities else self.classes_of(values)[..., None]

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """The class of each cell, (h, w) int16, of probabilities."""
        return class_of_probabilities(values, self.threshold)

    def classes(self, kept: np.ndarray) -> np.ndarray:
        """The class of each cell, (h, w) int16, of what was kept."""
        return self.classes_of(kept) if self.probabilities else kept[..., 0].astype(np.int16)
