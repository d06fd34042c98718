"""Values of cells from all eight flips and turns of a tile: their mean, and how much they differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ann.data.samples.augmentation import ORIENTATIONS, orient_image, turned_back


def turned_network(network: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A network that asks another one about all turns of its square images.

    network: images (B, S, S, C) float32 -> values (B, S, S, K) float32. The new one gives (B, S, S, 2 K)
    float32: mean and standard deviation of the values of the eight turns. Of turned images it gives the
    turned values but for rounding; a cell's values don't depend on the tile either, as tiles begin at
    multiples of the network's stride, turned or not. Memory is that of twice the values.
    """

    def run(images: np.ndarray) -> np.ndarray:
        total = squares = None
        for turn in range(ORIENTATIONS):
            turned = np.stack([orient_image(image, turn) for image in images])
            back = turned_back(turn)
            values = np.stack([orient_image(one, back) for one in np.asarray(network(turned), np.float64)])
            total = values if total is None else total + values
            squares = values**2 if squares is None else squares + values**2
        mean = total / ORIENTATIONS
        deviation = np.sqrt(np.maximum(squares / ORIENTATIONS - mean**2, 0.0))
        return np.concatenate([mean, deviation], axis=-1).astype(np.float32)

    return run
