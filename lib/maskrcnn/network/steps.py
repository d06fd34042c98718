"""The steps between the layers, chosen for a model by its variant: the only place where that is decided.

Everything that calls a step gives it the same arguments, whichever it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import ops

from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.anchors import STRIDES, level_anchor_counts
from maskrcnn.network.bin_pooling import align
from maskrcnn.network.boxes import keep_pixels, normalise_boxes
from maskrcnn.network.detections import select_detections, select_detections_of_every_class
from maskrcnn.network.proposals import select_proposals, select_proposals_by_level
from maskrcnn.network.roi_pooling import pool_flat


@dataclass(frozen=True)
class Steps:
    """Functions of arrays. A region's *unit* is pixels, or shares of the image (`boxes.normalise_boxes`).

    Attributes:
        to_unit: boxes (..., 4) in pixels, image_shape -> in the unit.
        propose: logits (B, A, 2), deltas (B, A, 4), anchors (A, 4), windows (B, 4), image_shape, count ->
            (B, count, 4); anchors, windows and the answer in the unit.
        detect: rois, logits (B, n, K), deltas (B, n, K, 4), windows, confidence -> see `select_detections`.
        pool: cells (B, cells, C), rois (B, n, 4), size, image_shape, first cell -> (B, n, size, size, C).
        final_boxes: boxes (..., 4) in the unit, image_shape -> pixels of the input, NumPy: whole ones,
            int32, or float32.
    """

    to_unit: Callable
    propose: Callable
    detect: Callable
    pool: Callable
    final_boxes: Callable


def choose_steps(config: MaskRCNNConfig) -> Steps:
    """The steps of a model."""
    variant = config.variant
    return Steps(
        to_unit=keep_pixels if variant.pixels else normalise_boxes,
        propose=functools.partial(_propose_by_level if variant.proposals_by_level else _propose, config),
        detect=functools.partial(_detect_every_class if variant.every_class else _detect, config),
        pool=functools.partial(_pool_bins, variant) if variant.pooling == "bins" else _pool_points,
        final_boxes=_whole_pixels if variant.pasting == "rounded" else _exact_pixels,
    )


def foreground_scores(logits):
    """Probability that an anchor shows an object, (B, A) float32, from logits (B, A, 2)."""
    return ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., 1]


def _propose(config, logits, deltas, anchors, windows, image_shape, count):
    return select_proposals(
        foreground_scores(logits),
        ops.cast(deltas, "float32"),
        anchors,
        candidates=config.proposal_candidates,
        count=count,
        nms_threshold=config.proposal_nms_threshold,
        box_deviation=config.box_deviation,
    )


def _propose_by_level(config, logits, deltas, anchors, windows, image_shape, count):
    logits = ops.cast(logits, "float32")
    return select_proposals_by_level(
        logits[..., 1] - logits[..., 0],
        ops.cast(deltas, "float32"),
        anchors,
        windows,
        counts=level_anchor_counts(image_shape, config.anchor_ratios),
        candidates=config.proposal_candidates,
        count=count,
        nms_threshold=config.proposal_nms_threshold,
        box_deviation=config.box_deviation,
        variant=config.variant,
    )


def _detection_settings(config, confidence):
    return {
        "count": config.max_detections,
        "nms_threshold": config.detection_nms_threshold,
        "confidence": confidence,
        "box_deviation": config.box_deviation,
    }


def _detect(config, rois, logits, deltas, windows, confidence):
    settings = _detection_settings(config, confidence)
    return select_detections(
        rois,
        ops.softmax(logits),
        deltas,
        windows,
        background_competes=config.background_competes,
        **settings,
    )


def _detect_every_class(config, rois, logits, deltas, windows, confidence):
    settings = _detection_settings(config, confidence)
    probabilities = ops.softmax(logits)
    return select_detections_of_every_class(
        rois, probabilities, deltas, windows, variant=config.variant, **settings
    )


def pyramid_shapes(image_shape):
    """(height, width) in cells of P2 to P5."""
    return [(image_shape[0] // stride, image_shape[1] // stride) for stride in STRIDES[:4]]


def _pool_points(cells, rois, size, image_shape, first_cell=0):
    return pool_flat(cells, pyramid_shapes(image_shape), rois, size, image_shape, first_cell)


def _pool_bins(variant, cells, rois, size, image_shape, first_cell=0):
    return align(cells, pyramid_shapes(image_shape), rois, size, variant, first_cell)


def _whole_pixels(boxes: np.ndarray, image_shape) -> np.ndarray:
    """Halves go to the even pixel."""
    height, width = image_shape
    scale = np.float32([height - 1, width - 1, height - 1, width - 1])
    return np.around(boxes * scale + np.float32([0, 0, 1, 1])).astype(np.int32)


def _exact_pixels(boxes: np.ndarray, image_shape) -> np.ndarray:
    return np.asarray(boxes, np.float32)
