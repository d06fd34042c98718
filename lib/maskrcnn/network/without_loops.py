"""Suppression and matching for PyTorch on a GPU, beside the loops of `nms` and `targets`.

A loop whose end depends on values makes the host wait for the device in each round, hundreds of times in a
step. Here the number of operations is fixed, so that a step can be recorded as a whole, at the price of work
on places that are empty. Memory: a few times B x BLOCK x n, and B x SLOTS x A, numbers.

Shapes: B images, n boxes, k boxes asked for, A anchors, N labelled instances.
"""

from __future__ import annotations

import torch

from maskrcnn.network.boxes import area_of_edges, edges, iou, iou_of_edges

BLOCK = 1000  # boxes that are settled together
# Odd. In a block, a box whose fate hangs on a row of more boxes that suppress each other in turn is dropped.
ROUNDS = 33
SLOTS = 32  # instances that are matched at a time


def non_max_suppression(boxes, threshold, count, valid, groups):
    """`nms.non_max_suppression` of (B, n, 4) float32 boxes; valid (B, n) bool, groups (B, n) int32 or None.

    The same up to `ROUNDS`: what is left undecided then goes, so no two boxes that stay are rivals.
    """
    batch, total = boxes.shape[:2]
    exact = (
        torch.float32 if boxes.device.type == "cpu" else torch.float16
    )  # 0, 1 and counts above 0 in any case
    numbers = torch.arange(total, device=boxes.device)
    stays = torch.zeros((batch, total, 1), dtype=exact, device=boxes.device)
    for start in range(0, total, BLOCK):
        block = slice(start, min(start + BLOCK, total))
        rivals = iou(boxes[:, block], boxes[:, : block.stop]) > threshold
        rivals &= numbers[: block.stop] < numbers[block, None]
        if groups is not None:
            rivals &= groups[:, block, None] == groups[:, None, : block.stop]
        rivals = rivals.to(exact)
        alive = valid[:, block, None].to(exact)
        if start:
            alive = torch.baddbmm(alive, rivals[..., :start], stays[:, :start], alpha=-1).relu_()
        rivals = rivals[..., start:]
        settled = alive
        # in turn too many and too few of them stay, fewer wrongly in each round
        for _ in range(ROUNDS):
            settled = torch.baddbmm(alive, rivals, settled, alpha=-1).relu_()
        stays[:, block] = settled
    places = torch.where(stays[..., 0] > 0, numbers, total).sort(dim=1).values[:, :count]
    if places.shape[1] < count:
        places = torch.nn.functional.pad(places, (0, count - total), value=total)
    kept = places < total
    return torch.where(kept, places, 0).to(torch.int32), kept


def match_anchors(anchors, class_ids, boxes, is_on, equal_overlap: float):
    """`targets._match_anchors`, some instances at a time instead of one by one.

    Args:
        anchors: (A, 4) float32, pixels; class_ids: (B, N) int32; boxes: (B, N, 4) float32, pixels.
        is_on: whether boxes lie on crowds: IoU, area of the boxes, area of the crowds -> bool.
        equal_overlap: IoUs that differ by less are equal.
    """
    anchor_edges = edges(anchors)  # (A,) each
    anchor_area = area_of_edges(anchor_edges)
    shape = (len(boxes), len(anchors))
    overlap = torch.zeros(shape, device=boxes.device)
    instance = torch.zeros(shape, dtype=torch.int32, device=boxes.device)
    on_crowd = torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    is_best = on_crowd
    for start in range(0, boxes.shape[1], SLOTS):
        box_edges = [edge[..., None] for edge in edges(boxes[:, start : start + SLOTS])]  # (B, SLOTS, 1) each
        ids = class_ids[:, start : start + SLOTS, None]
        overlaps = iou_of_edges(box_edges, anchor_edges)  # (B, SLOTS, A)
        on_crowd = on_crowd | ((ids < 0) & is_on(overlaps, anchor_area, area_of_edges(box_edges))).any(dim=1)
        overlaps = torch.where(ids > 0, overlaps, 0.0)
        best = overlaps.amax(dim=2, keepdim=True)
        is_best = is_best | (overlaps >= torch.where(best > 0, best - equal_overlap, 2.0)).any(dim=1)
        highest, slot = overlaps.max(dim=1)  # the first of several
        instance = torch.where(highest > overlap, start + slot.to(torch.int32), instance)
        overlap = torch.maximum(overlap, highest)
    return overlap, instance, on_crowd, is_best
