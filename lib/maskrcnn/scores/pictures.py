"""Pictures of an image with its labels, and of the same with what was detected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from ann.data.dataset import LabelledImage
from ann.data.samples.order import evenly
from ann.data.samples.resize import resize_mask
from ann.data.targets.instances import Sample
from ann.evaluation.pictures import COLOURS, IGNORED, jpeg, shown_pixels
from maskrcnn.scores.results import ImageResult, Objects

SAME_OBJECT = 0.5  # IoU from which a detection is right
WRONG = (255, 40, 40)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two JPEG pictures of one window, and what to say about them."""

    name: str
    truth: bytes
    found: bytes
    objects: int
    missed: int
    detections: int
    wrong: int


def pick_windows(results: list[ImageResult], count: int) -> list[int]:
    """Numbers of up to `count` windows, spread over all that have objects; always the same ones."""
    with_objects = [number for number, one in enumerate(results) if (one.truth.class_ids > 0).any()]
    chosen = with_objects or list(range(len(results)))
    return [chosen[place] for place in evenly(len(chosen), count)]


def draw_pair(
    image: LabelledImage, sample: Sample, result: ImageResult, confidences: np.ndarray, mean, scale
) -> Pair:
    """Draw a window's labels and its detections.

    confidences: (K,) lowest score of each class that is drawn; mean, scale: of the network's input.

    The inside of an object has the colour of its class. Its outline has it too where label and detection
    agree (same class, IoU of at least a half); a label that was missed and a wrong detection get a red one.
    """
    canvas = shown_pixels(sample.image, sample.content, mean, scale, image.dtype)
    drawn = _above(result.found, confidences)
    hits, right = match(result, drawn)
    objects = result.truth.class_ids > 0
    truth, found = canvas.copy(), canvas.copy()
    for index, class_id in enumerate(result.truth.class_ids.tolist()):
        colour = COLOURS[(class_id - 1) % len(COLOURS)] if class_id > 0 else IGNORED
        outline = WRONG if class_id > 0 and not hits[index] else colour
        _draw(truth, result.truth, index, sample.content, colour, outline)
    for place, index in reversed(list(enumerate(drawn))):  # the best on top
        colour = COLOURS[(int(result.found.class_ids[index]) - 1) % len(COLOURS)]
        _draw(found, result.found, index, sample.content, colour, colour if right[place] else WRONG)
    return Pair(
        name=result.name,
        truth=jpeg(truth),
        found=jpeg(found),
        objects=int(objects.sum()),
        missed=int((objects & ~hits).sum()),
        detections=len(drawn),
        wrong=int((~right).sum()),
    )


def match(result: ImageResult, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which labels (N,) were found by the detections `drawn` (D, indices, best first), and which of these
    (D,) are right. A detection inside of an ignored region of its class is not wrong.
    """
    truth, found = result.truth, result.found
    hits, right = np.zeros(len(truth.class_ids), bool), np.zeros(len(drawn), bool)
    if not len(hits) or not len(drawn):
        return hits, right
    crowd = (truth.class_ids < 0).astype(int).tolist()
    overlaps = coco_mask.iou([found.masks[index] for index in drawn], list(truth.masks), crowd)
    for place, index in enumerate(drawn):
        own = np.abs(truth.class_ids) == found.class_ids[index]
        free = own & ~(hits & (truth.class_ids > 0)) & (overlaps[place] >= SAME_OBJECT)
        if free.any():
            best = max(np.flatnonzero(free), key=lambda one: (truth.class_ids[one] > 0, overlaps[place, one]))
            hits[best] = right[place] = True
    return hits, right


def _above(found: Objects, confidences: np.ndarray) -> np.ndarray:
    """Indices of the detections to draw, best first."""
    wanted = np.flatnonzero(found.scores >= confidences[found.class_ids - 1])
    return wanted[np.argsort(-found.scores[wanted], kind="stable")]


def _draw(canvas: np.ndarray, objects: Objects, index: int, content, colour, outline) -> None:
    """Tint the inside of an object and draw its outline, two pixels wide."""
    mask = objects.mask(index)
    if mask is None:
        return
    y1, x1, y2, x2 = content
    moved = type(mask)(row=mask.row - y1, column=mask.column - x1, pixels=mask.pixels)
    resized = resize_mask(moved, (y2 - y1, x2 - x1), canvas.shape[:2])
    if resized is None:
        return
    top, left, bottom, right = resized.box
    part = canvas[top:bottom, left:right]
    inside = ndimage.binary_erosion(resized.pixels, iterations=2)
    part[inside] = (0.75 * part[inside] + 0.25 * np.array(colour)).astype(np.uint8)
    part[resized.pixels & ~inside] = outline
