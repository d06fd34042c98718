"""How well a class raster agrees with the labels: confusion matrix, IoU, Dice, and measures for thin objects.

Cells whose label is not known count nowhere. With K classes there are K + 1 rows and columns, the background
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SLACK = 3  # cells, as it is customary for roads of 1 m per cell


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Counts that can be added up over images.

    confusion: (K + 1, K + 1) int64, rows are labels, columns what was predicted.
    near: (K, 4) int64 for each class: cells predicted, of these near a labelled one; cells labelled, of these
    near a predicted one.
    """

    confusion: np.ndarray
    near: np.ndarray

    def __add__(self, other: CellCounts) -> CellCounts:
        return CellCounts(self.confusion + other.confusion, self.near + other.near)


def count_cells(
    labels: np.ndarray, predicted: np.ndarray, class_count: int, slack: int = SLACK
) -> CellCounts:
    """Compare two class rasters (H, W) int; labels are negative where nothing is known.

    class_count: K, without the background. slack: how many cells away counts as near.
    """
    known = labels >= 0
    size = class_count + 1
    pairs = labels[known].astype(np.int64) * size + predicted[known]
    confusion = np.bincount(pairs, minlength=size * size).reshape(size, size)
    near = np.zeros((class_count, 4), dtype=np.int64)
    for class_id in range(1, size):
        truth, found = (labels == class_id) & known, (predicted == class_id) & known
        near[class_id - 1] = (
            np.count_nonzero(found),
            np.count_nonzero(found & _grown(truth, slack)),
            np.count_nonzero(truth),
            np.count_nonzero(truth & _grown(found, slack)),
        )
    return CellCounts(confusion, near)


def _grown(mask: np.ndarray, cells: int) -> np.ndarray:
    """Cells at most that far (Euclidean) from one of the mask."""
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) <= cells


def add_up(counts: Iterable[CellCounts], class_count: int) -> CellCounts:
    """The sum, zeros for no image."""
    size = class_count + 1
    total = CellCounts(np.zeros((size, size), np.int64), np.zeros((class_count, 4), np.int64))
    for one in counts:
        total = total + one
    return total


@dataclass(frozen=True, eq=False)
class CellScores:
    """Scores by class name. A score of nothing, like the recall of a class that is not labelled, is NaN."""

    classes: tuple[str, ...]
    counts: CellCounts

    @property
    def accuracy(self) -> float:
        """Share of the cells whose class, or background, is right."""
        confusion = self.counts.confusion
        return _share(np.trace(confusion), confusion.sum())

    def of_class(self, class_id: int) -> dict[str, float]:
        """IoU, Dice (the same as F1), precision and recall of a class id, 0 being the background."""
        confusion = self.counts.confusion
        right = confusion[class_id, class_id]
        labelled, found = confusion[class_id].sum(), confusion[:, class_id].sum()
        values = {
            "IoU": _share(right, labelled + found - right),
            "Dice": _share(2 * right, labelled + found),
            "precision": _share(right, found),
            "recall": _share(right, labelled),
        }
        if class_id:
            found, found_near, labelled, labelled_near = self.counts.near[class_id - 1]
            precision, recall = _share(found_near, found), _share(labelled_near, labelled)
            values |= {
                "relaxed_precision": precision,
                "relaxed_recall": recall,
                "relaxed_F1": _share(2 * precision * recall, precision + recall),
            }
        return values

    def mean(self, name: str) -> float:
        """The mean of a score over the classes that are labelled or predicted, without the background."""
        values = [self.of_class(class_id)[name] for class_id in range(1, len(self.classes) + 1)]
        known = [value for value in values if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    def columns(self) -> dict[str, float]:
        """The scores as columns of the table of a run: means, and those of each class."""
        names = ("IoU", "Dice", "precision", "recall")
        relaxed = ("relaxed_precision", "relaxed_recall", "relaxed_F1")
        values = {"accuracy": self.accuracy} | {name: self.mean(name) for name in (*names, *relaxed)}
        if len(self.classes) > 1:
            for class_id, class_name in enumerate(self.classes, 1):
                one = self.of_class(class_id)
                values |= {f"{name}_{class_name}": one[name] for name in names}
        return values


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
