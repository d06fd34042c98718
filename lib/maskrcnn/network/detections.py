"""Detections: class, box and score of each region of interest, without doubles.

Shapes: B images, P regions of interest, K classes with the background.
"""

from __future__ import annotations

import math

from keras import ops

from maskrcnn.network.boxes import apply_deltas, clip_boxes, shortest_sides
from maskrcnn.network.nms import non_max_suppression
from maskrcnn.network.picking import best_indices, gather_rows


def choose_classes(probabilities, background_competes: bool):
    """The class that each region of interest counts for, and its score.

    Args:
        probabilities: (..., K) float32, the background first.
        background_competes: the background is a class like the others, as in the legacy models: a region
            that is most likely background is no object, whatever score its best object class has. Otherwise
            the best object class counts, and the score alone decides what is reported (as in Fast R-CNN,
            Girshick 2015).

    Returns:
        class_ids: (...) int32, 0 where the background won; scores: (...) float32.
    """
    first = 0 if background_competes else 1
    candidates = probabilities[..., first:]
    return ops.cast(ops.argmax(candidates, axis=-1), "int32") + first, ops.max(candidates, axis=-1)


def select_detections(
    rois,
    probabilities,
    deltas,
    windows,
    *,
    count,
    nms_threshold,
    confidence,
    box_deviation,
    background_competes,
):
    """The best instances. Each region of interest counts for one class only, see `choose_classes`.

    Args:
        rois: (B, P, 4) float32, normalised; zero rows are padding and never become detections.
        probabilities: (B, P, K) float32.
        deltas: (B, P, K, 4) float32, in units of `box_deviation`.
        windows: (B, 4) float32, normalised: the part of the input that shows the image. Boxes are cut there.
        count: how many detections come out.
        nms_threshold: IoU above which the lower of two boxes of one class is dropped.
        confidence: lowest score that counts.
        box_deviation: four floats, scale of the deltas.
        background_competes: see `choose_classes`.

    Returns:
        boxes: (B, count, 4) float32, normalised.
        class_ids: (B, count) int32, 1 to K - 1.
        scores: (B, count) float32.
        All best first (equal scores in the order of the regions), with zeros at the end.
    """
    class_ids, scores = choose_classes(probabilities, background_competes)  # (B, P)
    own = ops.expand_dims(ops.one_hot(class_ids, probabilities.shape[-1], dtype="float32"), -1)
    deltas = ops.sum(ops.where(own > 0, deltas, 0.0), axis=2)  # (B, P, 4), those of the class
    boxes = apply_deltas(rois, deltas * ops.convert_to_tensor(box_deviation, dtype="float32"))
    boxes = clip_boxes(boxes, windows)
    valid = (class_ids > 0) & (scores >= confidence) & ops.any(rois != 0, axis=-1)

    order = best_indices(ops.where(valid, scores, -1.0), rois.shape[1])  # NMS wants the best first
    boxes, class_ids, scores, valid = (gather_rows(part, order) for part in (boxes, class_ids, scores, valid))
    return _without_doubles(boxes, class_ids, scores, valid, nms_threshold, count)


def select_detections_of_every_class(
    rois, probabilities, deltas, windows, *, count, nms_threshold, confidence, box_deviation, variant
):
    """The best instances, where a region of interest may show one of each class.

    Arguments and results as `select_detections`; boxes and windows in the unit of the regions.

    Args:
        variant: `lowest_score`, which a score must be above (as well as not below `confidence`), and
            `smallest_detection`, the least length of a box' shorter side.
    """
    objects = probabilities.shape[2] - 1
    total = rois.shape[1] * objects
    scores = ops.reshape(probabilities[..., 1:], (-1, total))  # region by region, class by class
    above = (scores > variant.lowest_score) & (scores >= confidence)
    # no more classes of a region can be above the lowest score than make up 1
    most = objects if variant.lowest_score <= 0 else min(objects, math.ceil(1 / variant.lowest_score))
    picked = best_indices(ops.where(above, scores, -1.0), rois.shape[1] * most)  # NMS wants the best first
    scores, valid = gather_rows(scores, picked), gather_rows(above, picked)
    regions = gather_rows(rois, picked // objects)
    deltas = gather_rows(ops.reshape(deltas[:, :, 1:], (-1, total, 4)), picked)
    deltas = deltas * ops.convert_to_tensor(box_deviation, dtype="float32")
    boxes = clip_boxes(apply_deltas(regions, deltas, variant.largest_log_scale), windows)
    class_ids = picked % objects + 1
    valid &= ops.any(regions != 0, axis=-1) & (shortest_sides(boxes) >= variant.smallest_detection)

    return _without_doubles(boxes, class_ids, scores, valid, nms_threshold, count)


def _without_doubles(boxes, class_ids, scores, valid, nms_threshold, count):
    """The best `count` of candidates that come best first, with zeros at the end."""
    indices, kept = non_max_suppression(boxes, nms_threshold, count, valid, groups=class_ids)
    boxes, class_ids, scores = (gather_rows(part, indices) for part in (boxes, class_ids, scores))
    return (
        ops.where(ops.expand_dims(kept, -1), boxes, 0.0),
        ops.where(kept, class_ids, 0),
        ops.where(kept, scores, 0.0),
    )
