"""Detect in the validation windows, as the network sees them in training: quick enough for every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ann.data.dataset import LabelledImage
from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.pixels.windows import Window
from ann.data.samples.batches import ValidationBatches
from ann.data.samples.prefetch import Prefetcher
from ann.data.samples.samples import Sample
from maskrcnn.instances.instances import TileDetections, box_mask
from maskrcnn.scores.results import ImageResult, Objects, make_objects

CONFIDENCE = 0.05  # lowest score of a detection that is scored: the curve needs the uncertain ones too

# (images (B, H, W, C) float32 scaled, windows (B, 4) float32 pixels, confidence) -> B TileDetections
Detector = Callable[[np.ndarray, np.ndarray, float], Sequence[TileDetections]]


def detect_windows(
    detector: Detector, windows: ValidationBatches, *, batch_size: int = 1, workers: int = 2
) -> list[ImageResult]:
    """Labels and detections of each window, in its order. Boxes are the network's own.

    The detector always gets `batch_size` images, the last time zeros among them. Objects whose greater part
    the window cuts away are regions in which nothing is scored, as in training.
    """
    results = []
    count = windows.sample_count
    with Prefetcher(windows.sample, stop=count, workers=workers) as samples:
        for start in range(0, count, batch_size):
            batch = [next(samples) for _ in range(min(batch_size, count - start))]
            images = np.zeros((batch_size, *batch[0].image.shape), np.float32)
            contents = np.tile(np.float32([0, 0, *batch[0].image.shape[:2]]), (batch_size, 1))
            for place, sample in enumerate(batch):
                images[place], contents[place] = sample.image, sample.content
            found = detector(images, contents, CONFIDENCE)
            for place, sample in enumerate(batch):
                results.append(_result(window_name(*windows.window(start + place)), sample, found[place]))
    return results


def window_name(image: LabelledImage, window: Window) -> str:
    """What to call a window: as its image, with its place if it is a part of it."""
    if (window.height, window.width) == (image.height, image.width):
        return image.name
    y1, x1, y2, x2 = window.box
    return f"{image.name}[{y1}:{y2},{x1}:{x2}]"


def _result(name: str, sample: Sample, found: TileDetections) -> ImageResult:
    height, width = sample.image.shape[:2]
    return ImageResult(
        name=name,
        height=height,
        width=width,
        truth=make_objects(sample.masks, sample.class_ids, height, width),
        found=_detected(found, sample.content, height, width),
    )


def _detected(found: TileDetections, content: tuple[int, int, int, int], height: int, width: int) -> Objects:
    masks = [_draw(mask, box, content) for mask, box in zip(found.masks, found.boxes, strict=True)]
    return make_objects(
        masks, found.class_ids, height, width, scores=found.scores, boxes=np.asarray(found.boxes)
    )


def _draw(
    probabilities: np.ndarray, box: Sequence[int], content: tuple[int, int, int, int]
) -> CroppedMask | None:
    """The part of a detection's mask that shows the image; None where there is none."""
    y1, x1, y2, x2 = (int(value) for value in box)
    top, left = max(0, content[0] - y1), max(0, content[1] - x1)
    bottom, right = max(0, content[2] - y1), max(0, content[3] - x1)
    pixels = box_mask(probabilities, y2 - y1, x2 - x1)[top:bottom, left:right]
    return crop_mask(pixels, y1 + top, x1 + left) if pixels.size else None
