"""From the network's detections in one tile to instances in scene pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.inference.tiles import Tile

MASK_THRESHOLD = 0.5  # of the probability; the network's masks are trained for it


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object as seen in one tile. mask: scene pixels; class_id: 1 or more; score: 0 to 1."""

    mask: CroppedMask
    class_id: int
    score: float


class TileDetections(Protocol):
    """What the detector gives for one tile, n detections.

    boxes: (n, 4) int32, (y1, x1, y2, x2), pixels of the tile; class_ids: (n,) int32; scores: (n,) float32;
    masks: (n, m, m) float32, probabilities inside of the box (m is 28).
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


def paste_mask(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """A predicted mask at full size, (height, width) bool; the part of the box outside is cut off.

    probabilities: (m, m) float32; box: four integers (y1, x1, y2, x2).
    """
    full = np.zeros((height, width), dtype=bool)
    y1, x1, y2, x2 = (int(value) for value in box)
    if y1 < y2 and x1 < x2:
        inside = box_mask(probabilities, y2 - y1, x2 - x1)
        top, left = max(0, -y1), max(0, -x1)
        inside = inside[top : max(0, height - y1), left : max(0, width - x1)]
        full[y1 + top : y1 + top + inside.shape[0], x1 + left : x1 + left + inside.shape[1]] = inside
    return full


def box_mask(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """A predicted mask at the size of its box, (height, width) bool.

    Bilinear between the centres of the (m, m) cells, 0 outside of them, True from MASK_THRESHOLD on. This is
    separable: two small matrix products, so the work is that of the box and not of the tile.
    """
    rows = _interpolation(height, probabilities.shape[0])
    columns = _interpolation(width, probabilities.shape[1])
    return rows @ probabilities @ columns.T >= MASK_THRESHOLD


@lru_cache(maxsize=1024)
def _interpolation(length: int, cells: int) -> np.ndarray:
    """(length, cells) float32: the weight of each cell at each pixel. Neighbours outside weigh nothing."""
    position = (np.arange(length) + 0.5) * cells / length - 0.5
    lower = np.floor(position).astype(int)
    weights = np.zeros((length, cells + 2))  # one more on each side, for what lies outside
    pixels = np.arange(length)
    weights[pixels, lower + 1] = 1 - (position - lower)
    weights[pixels, lower + 2] = position - lower
    weights = np.ascontiguousarray(weights[:, 1:-1], dtype=np.float32)
    weights.setflags(write=False)
    return weights


def instances_in_tile(
    detections: TileDetections, tile: Tile, valid: np.ndarray, confidence: float
) -> list[Instance]:
    """The detections of one tile as instances in scene pixels, in the detector's order.

    valid: (tile.height, tile.width) bool; masks never cover cells without data, and nothing outside of the
    scene. Detections below `confidence` and those whose mask is empty are left out.
    """
    boxes = np.asarray(detections.boxes, dtype=np.int64)
    limit = np.array([tile.height, tile.width, tile.height, tile.width])
    clipped = np.clip(boxes, 0, limit)
    wanted = (
        (np.asarray(detections.scores) >= confidence)
        & (np.asarray(detections.class_ids) > 0)
        & (clipped[:, 0] < clipped[:, 2])
        & (clipped[:, 1] < clipped[:, 3])
    )
    all_valid = bool(valid.all())
    instances = []
    for index in np.flatnonzero(wanted):
        y1, x1, y2, x2 = (int(value) for value in boxes[index])
        top, left, bottom, right = (int(value) for value in clipped[index])
        pixels = box_mask(detections.masks[index], y2 - y1, x2 - x1)[
            top - y1 : bottom - y1, left - x1 : right - x1
        ]
        if not all_valid:
            pixels = pixels & valid[top:bottom, left:right]
        mask = crop_mask(pixels, tile.row + top, tile.column + left)
        if mask is not None:
            instances.append(
                Instance(
                    mask=mask,
                    class_id=int(detections.class_ids[index]),
                    score=float(detections.scores[index]),
                )
            )
    return instances
