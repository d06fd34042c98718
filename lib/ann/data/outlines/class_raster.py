"""Instances as a class raster: the class of each cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.data.outlines.masks import CroppedMask

UNKNOWN = -1  # cells that losses and scores leave out


def rasterise(
    masks: Sequence[CroppedMask],
    class_ids: Sequence[int],
    shape: tuple[int, int],
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """The class of each cell, (H, W) int16: 0 where there is no instance, UNKNOWN where nothing is known.

    Where instances overlap the smaller one is seen: a car on a parking lot, a pool in a garden; of two of one
    size the later one. Regions (negative class ids: crowds, ground that isn't labelled) are unknown where no
    instance lies; so are cells without data.
    """
    raster = np.zeros(shape, dtype=np.int16)
    order = sorted(range(len(masks)), key=lambda index: (class_ids[index] > 0, -masks[index].area, index))
    for index in order:
        mask = masks[index]
        y1, x1, y2, x2 = mask.box
        raster[y1:y2, x1:x2][mask.pixels] = max(int(class_ids[index]), UNKNOWN)
    if valid is not None:
        raster[~valid] = UNKNOWN
    return raster
