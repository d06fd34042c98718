"""From the network's detections in one tile to instances in scene pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.inference.tiles import Tile
from maskrcnn.instances.pasting import MASK_THRESHOLD, box_mask, place_mask

__all__ = ["MASK_THRESHOLD", "Instance", "TileDetections", "box_mask", "instances_in_tile", "paste_mask"]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How the eight turns of a tile agree on an object, see `turns`.

    votes: turns in which it was found with the confidence asked for.
    spread: standard deviation of its scores, 0 where it was not found.
    """

    votes: int
    spread: float


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object as seen in one tile. mask: scene pixels; class_id: 1 or more; score: 0 to 1.

    certainty: None where the tile was looked at once.
    """

    mask: CroppedMask
    class_id: int
    score: float
    certainty: Certainty | None = None


class TileDetections(Protocol):
    """What the detector gives for one tile, n detections.

    boxes: (n, 4) int32 or float32, (y1, x1, y2, x2), pixels of the tile; class_ids: (n,) int32; scores: (n,)
    float32; masks: (n, m, m) float32, probabilities inside of the box (m is 28).
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of a tile, see `TileDetections`."""

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


def paste_mask(
    probabilities: np.ndarray, box: np.ndarray, height: int, width: int, rule: str = "rounded"
) -> np.ndarray:
    """A predicted mask at full size, (height, width) bool; the part of the box outside is cut off.

    probabilities: (m, m) float32; box, rule: see `place_mask`.
    """
    full = np.zeros((height, width), dtype=bool)
    pixels, row, column = place_mask(probabilities, box, rule, (height, width))
    full[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels
    return full


def instances_in_tile(
    detections: TileDetections, tile: Tile, valid: np.ndarray, confidence: float, pasting: str = "rounded"
) -> list[Instance]:
    """The detections of one tile as instances in scene pixels, in the detector's order.

    valid: (tile.height, tile.width) bool; masks never cover cells without data, and nothing outside of the
    scene. Detections below `confidence` and those whose mask is empty are left out. pasting: see
    `place_mask`.
    """
    wanted = (np.asarray(detections.scores) >= confidence) & (np.asarray(detections.class_ids) > 0)
    all_valid = bool(valid.all())
    instances = []
    for index in np.flatnonzero(wanted):
        pixels, row, column = place_mask(
            detections.masks[index], detections.boxes[index], pasting, (tile.height, tile.width)
        )
        if not pixels.size:
            continue
        if not all_valid:
            pixels = pixels & valid[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        mask = crop_mask(pixels, tile.row + row, tile.column + column)
        if mask is not None:
            instances.append(
                Instance(
                    mask=mask,
                    class_id=int(detections.class_ids[index]),
                    score=float(detections.scores[index]),
                )
            )
    return instances
