"""Detect in the validation windows, as the network sees them in training: quick enough for every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.samples.batches import ValidationBatches, padded_batches, window_name
from ann.data.targets.instances import Sample
from ann.devices.sharing import ALONE, Sharing
from maskrcnn.instances.instances import TileDetections
from maskrcnn.instances.pasting import place_mask
from maskrcnn.scores.results import ImageResult, Objects, make_objects

CONFIDENCE = 0.05  # lowest score of a detection that is scored: the curve needs the uncertain ones too

# (images (B, H, W, C) float32 scaled, windows (B, 4) float32 pixels, confidence) -> B TileDetections
Detector = Callable[[np.ndarray, np.ndarray, float], Sequence[TileDetections]]


def detect_windows(
    detector: Detector,
    windows: ValidationBatches,
    *,
    batch_size: int = 1,
    workers: int = 2,
    sharing: Sharing = ALONE,
) -> list[ImageResult]:
    """Labels and detections of each window, in its order. Boxes are the network's own.

    The detector always gets as many images, see `padded_batches`. Objects whose greater part the window cuts
    away are regions in which nothing is scored, as in training.
    """
    results = {}
    for numbers, samples, images in padded_batches(windows, batch_size, workers, sharing):
        contents = np.tile(np.float32([0, 0, *images.shape[1:3]]), (len(images), 1))
        contents[: len(samples)] = [sample.content for sample in samples]
        # one that is filled up gives more
        found = detector(images, contents, CONFIDENCE)[: len(samples)]
        for number, sample, one in zip(numbers, samples, found, strict=True):
            name = window_name(*windows.window(number))
            results[number] = _result(name, sample, one, windows.config.variant.pasting)
    return sharing.collect(results)


def _result(name: str, sample: Sample, found: TileDetections, pasting: str) -> ImageResult:
    height, width = sample.image.shape[:2]
    return ImageResult(
        name=name,
        height=height,
        width=width,
        truth=make_objects(sample.masks, sample.class_ids, height, width),
        found=_detected(found, sample.content, height, width, pasting),
    )


def _detected(
    found: TileDetections, content: tuple[int, int, int, int], height: int, width: int, pasting: str
) -> Objects:
    masks = [_draw(mask, box, content, pasting) for mask, box in zip(found.masks, found.boxes, strict=True)]
    return make_objects(
        masks, found.class_ids, height, width, scores=found.scores, boxes=np.asarray(found.boxes)
    )


def _draw(
    probabilities: np.ndarray, box: Sequence[float], content: tuple[int, int, int, int], rule: str
) -> CroppedMask | None:
    """The part of a detection's mask that shows the image; None where there is none."""
    pixels, row, column = place_mask(probabilities, box, rule, (content[2], content[3]))
    top, left = max(0, content[0] - row), max(0, content[1] - column)
    pixels = pixels[top:, left:]
    return crop_mask(pixels, row + top, column + left) if pixels.size else None
