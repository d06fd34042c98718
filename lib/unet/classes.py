"""From probabilities to classes."""

from __future__ import annotations

import numpy as np


def class_of_probabilities(values: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The class of each cell, (...) int16: 0 is the background.

    values: (..., K) float32. A single one is that of the only class, which is chosen from `threshold` on;
    else the first is the background's, and the most probable class is chosen (of equal ones the first).
    """
    if values.shape[-1] == 1:
        return (values[..., 0] >= threshold).astype(np.int16)
    return values.argmax(axis=-1).astype(np.int16)
