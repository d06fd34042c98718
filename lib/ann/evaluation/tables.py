"""Tables that reports of several networks have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ann.evaluation.report import Row, Table


def confusion_table(names: Sequence[str], confusion: np.ndarray, counted: str) -> Table:
    """What each class was told as, per cent of the row, and how many there are.

    confusion: (K, K) int, rows are labels, columns what was predicted; counted: of what, for people.
    """
    rows = []
    for name, line in zip(names, confusion, strict=True):
        total = line.sum()
        shares = [f"{100 * value / total:.1f} %" if total else "–" for value in line]
        rows.append(Row(cells=[f"labelled {name}", *shares, f"{total:,}"]))
    return Table(head=["", *names, counted], rows=rows)


def known(values: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as JSON has them: None for what is no number."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}
