"""Detection with compiled parts: batches of tiles in, instances out.

The work is cut where the data grows: features and boxes are computed for the whole batch, masks only for
the instances there really are, a fixed number at a time, so a high limit of detections costs nothing.
The dense parts are plain callables of arrays with fixed shapes, so that another runtime can take them over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import ops

from .boxes import normalise_boxes
from .compilation import compile_function, compile_model
from .detections import select_detections
from .heads import BOX_POOL_SIZE, MASK_POOL_SIZE, MASK_SIZE
from .model import MaskRCNN, foreground_scores, normalised_anchors, pool_rows
from .proposals import select_proposals

MASK_CHUNK = 32  # regions that go through the mask head at a time


@dataclass(frozen=True)
class TileDetections:
    """Instances of one tile, the highest score first."""

    boxes: np.ndarray  # (n, 4) int32, pixels of the tile, (y1, x1, y2, x2)
    class_ids: np.ndarray  # (n,) int32, 1 is the first class
    scores: np.ndarray  # (n,) float32
    masks: np.ndarray  # (n, 28, 28) float32, probabilities over the box


@dataclass(frozen=True)
class DenseParts:
    """The parts with weights, as callables; arrays are of the backend or NumPy, shapes don't change.

    Attributes:
        features: images (B, H, W, bands) float32 -> [P2, P3, P4, P5, P6, logits (B, A, 2), deltas (B, A, 4)]
        box_head: (B * proposals, 7, 7, 256) float32 -> logits (B * proposals, K) and deltas (.., K, 4)
        mask_head: (MASK_CHUNK, 14, 14, 256) float32 -> probabilities (MASK_CHUNK, 28, 28, K)
    """

    features: Callable
    box_head: Callable
    mask_head: Callable


def compiled_parts(network: MaskRCNN) -> DenseParts:
    """The dense parts on Keras' own backend."""
    return DenseParts(
        *(compile_model(part) for part in (network.features, network.box_head, network.mask_head))
    )


class Detector:
    """Detects instances in batches of tiles.

    Args:
        network: the network; weights that are changed later are seen unless `parts` holds copies.
        parts: what runs the dense parts; by default the network itself.
    """

    def __init__(self, network: MaskRCNN, parts: DenseParts | None = None):
        self.config = network.config
        self._network = network
        self._parts = compiled_parts(network) if parts is None else parts
        self._glue = {}  # image shape -> _Glue

    def __call__(self, images, windows=None, confidence: float = 0.0) -> list[TileDetections]:
        """Instances of each image.

        Args:
            images: (B, H, W, bands) float32, scaled; H and W multiples of 64.
            windows: (B, 4) float32 pixels, the part of each image that is no padding; the whole by default.
            confidence: lowest score that is reported.
        """
        images = np.asarray(images, np.float32)
        image_shape = images.shape[1:3]
        if windows is None:
            windows = np.tile(np.float32([0, 0, *image_shape]), (len(images), 1))
        glue = self._glue.setdefault(image_shape, None) or self._new_glue(image_shape)

        *pyramid, logits, deltas = self._parts.features(images)
        pyramid = tuple(pyramid[:4])
        rois, pooled = glue.propose(pyramid, logits, deltas, glue.anchors)
        logits, deltas = self._parts.box_head(pooled)
        windows = ops.convert_to_numpy(normalise_boxes(np.asarray(windows, np.float32), image_shape))
        found = glue.detect(rois, logits, deltas, windows, np.float32(confidence))
        boxes, class_ids, scores = (ops.convert_to_numpy(values) for values in found)
        counts = np.count_nonzero(class_ids, axis=1)  # detections stand at the front
        masks = self._masks(glue, pyramid, boxes, class_ids, counts)
        pixels = _pixel_boxes(boxes, image_shape)
        return [
            _solid(TileDetections(pixels[i, :n], class_ids[i, :n], scores[i, :n], masks[i]))
            for i, n in enumerate(counts)
        ]

    def _masks(self, glue, pyramid, boxes, class_ids, counts) -> list[np.ndarray]:
        """Masks of the first `counts` boxes of each image, (n, 28, 28) float32 each."""
        pooled = []
        for image, count in enumerate(counts):
            for start in range(0, count, MASK_CHUNK):
                rois = _padded(boxes[image, start:count][:MASK_CHUNK])
                features = ops.convert_to_numpy(glue.pool_masks(pyramid, np.int32(image), rois))
                pooled.append(features[: count - start])
        pooled = np.concatenate(pooled) if pooled else np.zeros((0, 0, 0, 0), np.float32)
        classes = np.concatenate([class_ids[image, :count] for image, count in enumerate(counts)])
        masks = np.zeros((len(pooled), MASK_SIZE, MASK_SIZE), np.float32)
        for start in range(0, len(pooled), MASK_CHUNK):
            chunk = pooled[start : start + MASK_CHUNK]
            by_class = ops.convert_to_numpy(self._parts.mask_head(_padded(chunk)))
            rows = np.arange(len(chunk))
            masks[start : start + len(chunk)] = by_class[rows, :, :, classes[start : start + len(chunk)]]
        return np.split(masks, np.cumsum(counts)[:-1])

    def _new_glue(self, image_shape):
        self._glue[image_shape] = _Glue(self._network, image_shape)
        return self._glue[image_shape]


class _Glue:
    """What lies between the dense parts, compiled, for one shape of images."""

    def __init__(self, network: MaskRCNN, image_shape):
        config = network.config
        self.anchors = normalised_anchors(network.anchors(image_shape), image_shape)

        def propose(pyramid, logits, deltas, anchors):
            rois = select_proposals(
                foreground_scores(logits),
                ops.cast(deltas, "float32"),
                anchors,
                candidates=config.proposal_candidates,
                count=config.proposals_detection,
                nms_threshold=config.proposal_nms_threshold,
                box_deviation=config.box_deviation,
            )
            return rois, ops.cast(pool_rows(pyramid, rois, BOX_POOL_SIZE, image_shape), "float32")

        def detect(rois, logits, deltas, windows, confidence):
            rows = (-1, rois.shape[1], config.class_count)
            return select_detections(
                rois,
                ops.softmax(ops.reshape(ops.cast(logits, "float32"), rows)),
                ops.reshape(ops.cast(deltas, "float32"), (*rows, 4)),
                windows,
                count=config.max_detections,
                nms_threshold=config.detection_nms_threshold,
                confidence=confidence,
                box_deviation=config.box_deviation,
            )

        def pool_masks(pyramid, image, rois):
            levels = [ops.take(level, ops.reshape(image, (1,)), axis=0) for level in pyramid]
            return ops.cast(pool_rows(levels, rois[None], MASK_POOL_SIZE, image_shape), "float32")

        self.propose = compile_function(propose)
        self.detect = compile_function(detect)
        self.pool_masks = compile_function(pool_masks)


def _padded(rows: np.ndarray) -> np.ndarray:
    """`rows` with zeros up to MASK_CHUNK rows."""
    return np.pad(rows, [(0, MASK_CHUNK - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _pixel_boxes(boxes: np.ndarray, image_shape) -> np.ndarray:
    """Normalised boxes (..., 4) to whole pixels, int32, halves to the even pixel."""
    height, width = image_shape
    scale = np.float32([height - 1, width - 1, height - 1, width - 1])
    return np.around(boxes * scale + np.float32([0, 0, 1, 1])).astype(np.int32)


def _solid(detections: TileDetections) -> TileDetections:
    """`detections` without those whose box has no pixel left after rounding."""
    y1, x1, y2, x2 = detections.boxes.T
    keep = (y2 > y1) & (x2 > x1)
    values = (detections.boxes, detections.class_ids, detections.scores, detections.masks)
    return TileDetections(*(value[keep] for value in values))
