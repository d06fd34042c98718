"""Proposals: the best anchors, moved by their deltas, without near doubles.

Shapes: B images, A anchors.
"""

from __future__ import annotations

from keras import ops

from maskrcnn.network.boxes import apply_deltas, clip_boxes, shortest_sides
from maskrcnn.network.nms import non_max_suppression
from maskrcnn.network.picking import best_indices, gather_rows

LOWEST = -1e30  # below any score


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


def select_proposals_by_level(
    logits, deltas, anchors, windows, *, counts, candidates, count, nms_threshold, box_deviation, variant
):
    """Regions of interest, of which each level of the pyramid has its own candidates and suppression.

    Args:
        logits: (B, A) float32, how likely an anchor holds an object; the best of each level are candidates.
        deltas: (B, A, 4) float32, in units of `box_deviation`.
        anchors: (A, 4) float32, in the unit of the regions, pixels as a rule.
        windows: (B, 4) float32 in that unit, the part of the input that shows the image. Boxes are cut there.
        counts: how many anchors each level has, in their order.
        candidates: how many of the best anchors of a level are looked at (all if there are fewer).
        count, nms_threshold, box_deviation: as in `select_proposals`.
        variant: whether the best come by logit or by probability, and how small a region may be.

    Returns:
        (B, count, 4) float32, best first (equal ones by level and then by logit), zeros at the end if there
        are fewer.
    """
    logits, deltas = ops.stop_gradient(logits), ops.stop_gradient(deltas)
    best, levels, start = [], [], 0
    for level, size in enumerate(counts):
        taken = min(candidates, size)
        best.append(start + best_indices(logits[:, start : start + size], taken))
        levels += [level] * taken
        start += size
    best = ops.concatenate(best, axis=1)  # (B, candidates of all levels)
    scores = gather_rows(logits, best)
    if not variant.proposals_by_logit:
        scores = ops.sigmoid(scores)
    deltas = gather_rows(deltas, best) * ops.convert_to_tensor(box_deviation, dtype="float32")
    boxes = ops.take(ops.convert_to_tensor(anchors, dtype="float32"), best, axis=0)
    boxes = clip_boxes(apply_deltas(boxes, deltas, variant.largest_log_scale), windows)
    valid = shortest_sides(boxes) >= variant.smallest_proposal

    order = best_indices(
        ops.where(valid, scores, LOWEST), best.shape[1]
    )  # all of them: NMS wants the best first
    groups = ops.take(ops.convert_to_tensor(levels, dtype="int32"), order, axis=0)
    boxes, valid = gather_rows(boxes, order), gather_rows(valid, order)
    indices, kept = non_max_suppression(boxes, nms_threshold, count, valid, groups=groups)
    return ops.where(ops.expand_dims(kept, -1), gather_rows(boxes, indices), 0.0)
