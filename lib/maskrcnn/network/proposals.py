"""Proposals: the best anchors, moved by their deltas, without near doubles.

Shapes: B images, A anchors.
"""

from __future__ import annotations

from keras import ops

from maskrcnn.network.boxes import apply_deltas, clip_boxes
from maskrcnn.network.nms import non_max_suppression
from maskrcnn.network.picking import best_indices, gather_rows


def select_proposals(scores, deltas, anchors, *, candidates, count, nms_threshold, box_deviation):
    """Regions of interest from the scores of the anchors. Nothing flows back through it.

    Args:
        scores: (B, A) float32, how likely an anchor holds an object. Equal scores go by the anchor's index.
        deltas: (B, A, 4) float32, in units of `box_deviation`.
        anchors: (A, 4) float32, normalised.
        candidates: how many of the best anchors are looked at (all if there are fewer).
        count: how many regions come out.
        nms_threshold: IoU above which the lower of two regions is dropped.
        box_deviation: four floats, scale of the deltas.

    Returns:
        (B, count, 4) float32, normalised, within [0, 1], best first, zeros at the end if there are fewer.
    """
    scores, deltas = ops.stop_gradient(scores), ops.stop_gradient(deltas)
    candidates = min(candidates, anchors.shape[0])
    best = best_indices(scores, candidates)  # (B, candidates)
    deltas = gather_rows(deltas, best) * ops.convert_to_tensor(box_deviation, dtype="float32")
    boxes = apply_deltas(ops.take(ops.convert_to_tensor(anchors, dtype="float32"), best, axis=0), deltas)
    boxes = clip_boxes(boxes, ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0], dtype="float32"))
    indices, kept = non_max_suppression(boxes, nms_threshold, count)
    return ops.where(ops.expand_dims(kept, -1), gather_rows(boxes, indices), 0.0)
