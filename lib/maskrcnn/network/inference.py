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

from ann.devices.available import gpu_in_use
from ann.inference.compilation import compile_function, compile_model
from maskrcnn.config import Variant
from maskrcnn.network.bin_pooling import align_on_cpu
from maskrcnn.network.heads import BOX_POOL_SIZE, MASK_POOL_SIZE, MASK_SIZE
from maskrcnn.network.model import MaskRCNN, pyramid_cells
from maskrcnn.network.steps import pyramid_shapes

MASK_CHUNK = 32  # regions that go through the mask head at a time
MASK_CHUNK_ON_GPU = 128  # there each chunk is waited for


@dataclass(frozen=True)
class TileDetections:
    """Instances of one tile, the highest score first."""

    boxes: np.ndarray  # (n, 4) int32 or, with a variant of exact boxes, float32: pixels, (y1, x1, y2, x2)
    class_ids: np.ndarray  # (n,) int32, 1 is the first class
    scores: np.ndarray  # (n,) float32
    masks: np.ndarray  # (n, 28, 28) float32, probabilities over the box


@dataclass(frozen=True)
class DenseParts:
    """The parts with weights, as callables; arrays are of the backend or NumPy, shapes don't change.

    Attributes:
        features: images (B, H, W, bands) float32 -> [P2, P3, P4, P5, P6, logits (B, A, 2), deltas (B, A, 4)]
        box_head: (B * proposals, 7, 7, channels) float32 -> logits (B * proposals, K) and deltas (.., K, 4)
        mask_head: (chunk, 14, 14, channels) float32 -> probabilities (chunk, 28, 28, K)
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
        self._mask_chunk = MASK_CHUNK_ON_GPU if gpu_in_use() else MASK_CHUNK

    def __call__(self, images, windows=None, confidence: float = 0.0) -> list[TileDetections]:
        """Instances of each image.

        Args:
            images: (B, H, W, bands) float32, scaled; H and W multiples of 64, or of 32 with proposals by
            level.
            windows: (B, 4) float32 pixels, the part of each image that is no padding; the whole by default.
            confidence: lowest score that is reported.
        """
        images = np.asarray(images, np.float32)
        image_shape = images.shape[1:3]
        if windows is None:
            windows = np.tile(np.float32([0, 0, *image_shape]), (len(images), 1))
        glue = self.glue(image_shape)

        *pyramid, logits, deltas = self._parts.features(images)
        steps = self._network.steps
        windows = ops.convert_to_numpy(steps.to_unit(np.asarray(windows, np.float32), image_shape))
        rois, pooled, cells = glue.propose(tuple(pyramid), logits, deltas, glue.anchors, windows)
        logits, deltas = self._parts.box_head(pooled)
        found = glue.detect(rois, logits, deltas, windows, np.float32(confidence))
        boxes, class_ids, scores = (ops.convert_to_numpy(values) for values in found)
        counts = np.count_nonzero(class_ids, axis=1)  # detections stand at the front
        masks = self._masks(glue, cells, boxes, class_ids, counts)
        pixels = steps.final_boxes(boxes, image_shape)
        return [
            _solid(TileDetections(pixels[i, :n], class_ids[i, :n], scores[i, :n], masks[i]))
            for i, n in enumerate(counts)
        ]

    def glue(self, image_shape) -> _Glue:
        """What lies between the dense parts for images of a shape."""
        if image_shape not in self._glue:
            self._glue[image_shape] = _Glue(self._network, image_shape)
        return self._glue[image_shape]

    def _masks(self, glue, cells, boxes, class_ids, counts) -> list[np.ndarray]:
        """Masks of the first `counts` boxes of each image, (n, 28, 28) float32 each."""
        image_ids = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        places = np.concatenate([np.arange(count) for count in counts])
        boxes, class_ids = boxes[image_ids, places], class_ids[image_ids, places]
        masks = np.zeros((len(boxes), MASK_SIZE, MASK_SIZE), np.float32)
        for start in range(0, len(boxes), self._mask_chunk):
            chunk = slice(start, start + self._mask_chunk)
            padded = (_padded(rows[chunk], self._mask_chunk) for rows in (image_ids, boxes))
            pooled = glue.pool_masks(cells, *padded)
            by_class = ops.convert_to_numpy(self._parts.mask_head(pooled))
            real = class_ids[chunk]
            masks[chunk] = by_class[np.arange(len(real)), :, :, real]
        return np.split(masks, np.cumsum(counts)[:-1])


class _Glue:
    """What lies between the dense parts, compiled, for one shape of images."""

    def __init__(self, network: MaskRCNN, image_shape):
        config, steps = network.config, network.steps
        self.anchors = ops.convert_to_tensor(network.unit_anchors(image_shape))  # sent to the device once
        self._image_shape = image_shape

        def choose(pyramid, logits, deltas, anchors, windows):
            rois = steps.propose(logits, deltas, anchors, windows, image_shape, config.proposals_detection)
            return rois, pyramid_cells(pyramid)

        def propose(*arguments):
            rois, cells = choose(*arguments)
            pooled = steps.pool(cells, rois, BOX_POOL_SIZE, image_shape)
            return rois, ops.cast(ops.reshape(pooled, (-1, *pooled.shape[2:])), "float32"), cells

        def detect(rois, logits, deltas, windows, confidence):
            rows = (-1, rois.shape[1], config.class_count)
            return steps.detect(
                rois,
                ops.reshape(ops.cast(logits, "float32"), rows),
                ops.reshape(ops.cast(deltas, "float32"), (*rows, 4)),
                windows,
                confidence,
            )

        def pool_masks(cells, image_ids, rois):
            # regions of several images in one chunk: all pyramids as one row
            batch, count, channels = cells.shape
            cells = ops.reshape(cells, (1, batch * count, channels))
            pooled = steps.pool(cells, rois[None], MASK_POOL_SIZE, image_shape, image_ids[None] * count)
            return ops.cast(pooled[0], "float32")

        self.detect = compile_function(detect)
        if not _pools_on_cpu(config.variant):
            self.propose = compile_function(propose)
            self.pool_masks = compile_function(pool_masks)
        else:
            self._variant = config.variant
            self._choose = compile_function(choose)
            self.propose = self._propose_on_cpu
            self.pool_masks = self._pool_masks_on_cpu

    def _propose_on_cpu(self, *arguments):
        rois, cells = self._choose(*arguments)
        cells = np.asarray(ops.convert_to_numpy(ops.cast(cells, "float32")))
        rows = ops.convert_to_numpy(rois).reshape(-1, 4)
        image_ids = np.repeat(np.arange(len(cells)), rois.shape[1])
        return rois, self._align(cells, image_ids, rows, BOX_POOL_SIZE), cells

    def _pool_masks_on_cpu(self, cells, image_ids, rois):
        return self._align(cells, image_ids, rois, MASK_POOL_SIZE)

    def _align(self, cells, image_ids, rois, size):
        shapes, starts = pyramid_shapes(self._image_shape), image_ids * cells.shape[1]
        return align_on_cpu(cells.reshape(-1, cells.shape[-1]), shapes, rois, size, self._variant, starts)


def _pools_on_cpu(variant: Variant) -> bool:
    """Whether regions are pooled by NumPy: where a graph can't, as it takes a fixed number of samples, and
    where there is no GPU: a region is two small matrix products, in a graph 16 cells are gathered for a bin.
    """
    return variant.pooling == "bins" and (not variant.pooling_samples or not gpu_in_use())


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` with zeros up to `count` rows."""
    return np.pad(rows, [(0, count - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _solid(detections: TileDetections) -> TileDetections:
    """`detections` without those whose box has no area, or no pixel left after rounding."""
    y1, x1, y2, x2 = detections.boxes.T
    keep = (y2 > y1) & (x2 > x1)
    values = (detections.boxes, detections.class_ids, detections.scores, detections.masks)
    return TileDetections(*(value[keep] for value in values))
