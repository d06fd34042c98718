"""What was labelled and what was detected in one image, masks compressed, ready to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.outlines.rle import runs_from_mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """Objects of one image, N of them.

    masks: of the whole image, compressed as COCO does (a few hundred bytes each).
    boxes: (N, 4) float64, (y1, x1, y2, x2), pixels, ends exclusive.
    class_ids: (N,) int32, 1 is the first class; negative: a labelled region in which nothing is scored.
    scores: (N,) float64; 1 for labels.
    """

    masks: tuple[dict, ...]
    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray

    def mask(self, index: int) -> CroppedMask | None:
        """One mask, cut to its box; None if it is empty."""
        return crop_mask(coco_mask.decode(self.masks[index]).astype(bool))


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageResult:
    """Labels and detections of one image or window, in its pixels."""

    name: str
    height: int
    width: int
    truth: Objects
    found: Objects


def make_objects(
    masks: Sequence[CroppedMask | None],
    class_ids: Sequence[int],
    height: int,
    width: int,
    *,
    scores: Sequence[float] | None = None,
    boxes: np.ndarray | None = None,
) -> Objects:
    """Objects of an image of (height, width) pixels, which holds all the masks; None is an empty one.

    scores: None for labels; boxes: (N, 4), None for those around the masks.
    """
    if boxes is None:
        boxes = np.array([mask.box if mask else (0, 0, 0, 0) for mask in masks])
    return Objects(
        masks=tuple(compress(mask, height, width) for mask in masks),
        boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
        class_ids=np.asarray(class_ids, np.int32).reshape(-1),
        scores=np.ones(len(masks)) if scores is None else np.asarray(scores, np.float64).reshape(-1),
    )


def compress(mask: CroppedMask | None, height: int, width: int) -> dict:
    """A mask of an image of (height, width) pixels as pycocotools compresses it; None is an empty one."""
    runs = runs_from_mask(mask, height, width).tolist() if mask else [height * width]
    return coco_mask.frPyObjects({"counts": runs, "size": [height, width]}, height, width)
