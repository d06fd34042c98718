"""One labelled image, or a window of one, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ann.data.outlines.masks import CroppedMask


@dataclass(frozen=True, eq=False)
class Example:
    """Pixels and the instances in them.

    image: (H, W, C), any type of numbers; 0 where the image has no data.
    masks: N masks in pixels of `image`, in the order of `class_ids`.
    class_ids: (N,) int32; 1 is the first class, negative a region whose objects aren't labelled one by one.
    valid: (H, W) bool, False where the image has no data; None: all of it is valid.
    class_raster: (H, W) int16, the class of each cell, see `outlines.class_raster`; None: only instances are
        labelled.
    class_id: of the image as a whole; 0: it is not labelled as such.
    visible: (N,) float32, the share of each instance's area that lies inside of the window; None: all of it.
    """

    image: np.ndarray
    masks: tuple[CroppedMask, ...]
    class_ids: np.ndarray
    name: str
    valid: np.ndarray | None = None
    visible: np.ndarray | None = None
    class_raster: np.ndarray | None = None
    class_id: int = 0
