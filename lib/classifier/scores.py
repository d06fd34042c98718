"""How well classes are told: accuracy, precision, recall and F1 of each class; whether probabilities are
true.

K classes; labels and predictions are class ids less 1, from 0 to K - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10  # of the probability, in which it is compared with the share of right answers


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of N images. probabilities: (N, K) float32; labels: (N,) int.

    A score of nothing, as the recall of a class without an image, is NaN.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int: the most probable class, of equal ones the first."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64: rows are labels, columns what was predicted."""
        count = len(self.classes)
        pairs = self.labels.astype(np.int64) * count + self.predicted
        return np.bincount(pairs, minlength=count * count).reshape(count, count)

    @property
    def accuracy(self) -> float:
        """Share of images whose class is right."""
        return _share(np.trace(self.confusion), len(self.labels))

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the recalls of the classes that have images: each class counts alike."""
        return self.mean("recall")

    def of_class(self, index: int) -> dict[str, float]:
        """Precision, recall and F1 of a class, counted from 0."""
        confusion = self.confusion
        right = confusion[index, index]
        labelled, found = confusion[index].sum(), confusion[:, index].sum()
        return {
            "precision": _share(right, found),
            "recall": _share(right, labelled),
            "F1": _share(2 * right, labelled + found),
        }

    def mean(self, name: str) -> float:
        """The mean of a score over the classes that have images (of F1 also those that were predicted)."""
        values = np.array([self.of_class(index)[name] for index in range(len(self.classes))])
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    def calibration(self) -> list[tuple[float, float, int]]:
        """(mean probability, share of right answers, images) of each tenth of the probability that has any.

        The probability is that of the predicted class.
        """
        confidence = self.probabilities.max(axis=1)
        right = self.predicted == self.labels
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        return [
            (float(confidence[of_bin].mean()), float(right[of_bin].mean()), int(of_bin.sum()))
            for of_bin in (bins == one for one in np.unique(bins))
        ]

    @property
    def calibration_error(self) -> float:
        """Mean distance of probability and share of right answers over the tenths, weighted by their images.

        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", 2017.
        """
        total = sum(count * abs(said - was) for said, was, count in self.calibration())
        return _share(total, len(self.labels))

    def columns(self) -> dict[str, float]:
        """The scores as columns of the table of a run."""
        values = {
            "val_accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "F1": self.mean("F1"),
            "calibration_error": self.calibration_error,
        }
        return values | {f"F1_{name}": self.of_class(index)["F1"] for index, name in enumerate(self.classes)}


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
