"""In which order images are visited: a pure function of seed and position, so a run can go on anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ann.data.dataset import LabelledImage, count_instances
from ann.data.samples.resize import legacy_scale

RARITY_LIMIT = 8.0  # images of the rarest class come at most that many times as often


class VisitOrder:
    """An endless, shuffled walk over weighted images.

    weights: (n,) float, at least 1: mean number of visits of each image per epoch. Every image is visited
    once per epoch or more; with all weights 1 exactly once.
    """

    def __init__(self, weights: np.ndarray, seed: int):
        self._ends = np.cumsum(np.asarray(weights, dtype=np.float64))
        self._seed = seed
        self.visits_per_epoch = math.ceil(self._ends[-1] - 1e-9)
        self._epoch = lru_cache(maxsize=3)(self._shuffle)

    def __getitem__(self, visit: int) -> int:
        """Index of the image of the visit-th sample, counted from 0 over all epochs."""
        epoch, position = divmod(visit, self.visits_per_epoch)
        return int(self._epoch(epoch)[position])

    def _shuffle(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, 1, epoch])
        # Evenly spaced marks on the line of weights: an image of weight 2.3 gets 2 or 3 visits.
        marks = (generator.random() + np.arange(self.visits_per_epoch)) * (
            self._ends[-1] / self.visits_per_epoch
        )
        images = np.searchsorted(self._ends, marks, side="right").clip(max=len(self._ends) - 1)
        return generator.permutation(images)


def visit_weights(
    images: Sequence[LabelledImage],
    image_shape: tuple[int, int],
    *,
    min_dim: int,
    max_dim: int | None,
    balance: bool,
) -> np.ndarray:
    """How often each image is visited per epoch: as often as its area holds samples, once at least.

    balance: images of rare classes come more often, by the square root of how much rarer than the mean class
    the rarest class in them is, at most 8 times.
    """
    weights = np.ones(len(images))
    for index, image in enumerate(images):
        scale = legacy_scale(image.height, image.width, min_dim, max_dim)
        weights[index] = max(1.0, image.height * image.width * scale**2 / (image_shape[0] * image_shape[1]))
    if balance and images:
        rarity = class_rarity(images)
        for index, image in enumerate(images):
            present = np.asarray(image.instance_counts) > 0
            if present.any():
                weights[index] *= max(1.0, rarity[present].max())
    return weights


def class_rarity(images: Sequence[LabelledImage]) -> np.ndarray:
    """For each class the square root of mean count / its count, at most 8; (classes,) float64."""
    counts = np.array(count_instances(images, len(images[0].instance_counts)), dtype=np.float64)
    return np.minimum(np.sqrt(counts.mean() / np.maximum(counts, 1)), RARITY_LIMIT)


def evenly(count: int, wanted: int) -> list[int]:
    """Up to `wanted` of the numbers from 0 on below `count`, spread over all of them."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()
