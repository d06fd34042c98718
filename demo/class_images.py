"""Small images of four kinds of ground, drawn at random: for tests and studies of the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def draw_image(name: str, side: int = 40, seed: int = 0) -> np.ndarray:
    """(side, side, 3) uint8.

    "field" has stripes, "water" is dark and even, "forest" is green and rough, "town" has bright blocks on
    grey.
    """
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 6, (side, side, 1))
    if name == "water":
        image = np.array([30, 50, 90]) + noise
    elif name == "forest":
        image = np.array([40, 110, 40]) + 5 * generator.normal(0, 6, (side, side, 1))
    elif name == "field":
        stripes = (np.arange(side) + generator.integers(8)) % 8 < 4
        image = np.array([150, 130, 70]) + 60 * stripes[:, None, None] + noise
    else:
        image = np.full((side, side, 3), 110.0) + noise
        for _ in range(6):
            row, column = generator.integers(0, side - side // 6, 2)
            image[row : row + side // 6, column : column + side // 6] = generator.integers(150, 230, 3)
    return np.clip(image + generator.integers(-15, 15), 0, 255).astype(np.uint8)


def write_class_folders(root: Path, counts: Mapping[str, int], side: int = 40) -> Path:
    """A folder for each class with that many images; returns their root."""
    for seed, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = Image.fromarray(draw_image(name, side, 1000 * seed + number))
            image.save(root / name / f"{name}_{number}.png")
    return root
