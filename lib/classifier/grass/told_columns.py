"""What is told of a feature as columns of an attribute table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def told_columns(classes: Sequence[str], prefix: str = "") -> dict[str, str]:
    """Names of the columns, and their SQL types."""
    text = f"VARCHAR({max(len(name.encode()) for name in classes)})"
    return {
        f"{prefix}class": text,
        f"{prefix}probability": "DOUBLE PRECISION",
        f"{prefix}runner_up": text,
        f"{prefix}runner_up_probability": "DOUBLE PRECISION",
    }


def told_values(
    leading: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> list[str | float | None]:
    """The values of a feature in these columns.

    leading: (2,) the first two classes from 0 on, negative where nothing is told; probabilities: (2,) theirs.
    """
    if leading[0] < 0:
        return [None] * 4
    (first, second), (value, other) = leading.tolist(), probabilities.tolist()
    return [classes[first], value, classes[second], other]
