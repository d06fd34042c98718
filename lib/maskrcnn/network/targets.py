"""What the network should have said: targets of the anchors and of the sampled regions of interest.

Shapes: B images, A anchors, N labelled instances, P proposals, R sampled regions, mh x mw a mask.
Class ids: 0 padding, above 0 an instance, below 0 a crowd (instances not told apart, not to learn from).
A row beyond those that have masks can only be a crowd: what is left out of a crowded image.
The random choices are made by `noise`, uniform in [0, 1): the lowest win, the same ones on every backend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from maskrcnn.network.boxes import (
    area_of_edges,
    edges,
    encode_deltas,
    iou,
    iou_of_edges,
    keep_pixels,
    normalise_boxes,
)
from maskrcnn.network.picking import best_indices, gather_rows, loops_wait, scatter_rows
from maskrcnn.network.sampling import corners, sample_axis

ANCHOR_OBJECT = 0.7  # IoU from which an anchor is an object
ANCHOR_BACKGROUND = 0.3  # IoU below which it is background
ROI_OBJECT = 0.5  # IoU from which a region is an object, below it is background
CROWD_TOUCHED = 0.001  # IoU with a crowd from which an anchor or region can't be background ...
CROWD_COVERED = 0.5  # ... nor if that share of it lies inside, however small it is beside the crowd
EQUAL_OVERLAP = 1e-6  # IoUs that differ by less are rounding errors apart


def anchor_targets(anchors, class_ids, boxes, noise, *, anchors_per_image, box_deviation):
    """Which anchors should be objects, which background, and how the objects should move.

    An anchor is an object from an IoU of 0.7, or if no anchor overlaps an instance more (each of several
    equally good ones). It is background if its IoU with every instance is below 0.3 and it lies on no crowd.
    At most half of the sample are objects, background fills the rest.

    Args:
        anchors: (A, 4) float32, pixels.
        class_ids: (B, N) int32.
        boxes: (B, N, 4) float32, pixels.
        noise: (B, A) float32 in [0, 1).
        anchors_per_image: size of the sample.
        box_deviation: four floats, scale of the deltas.

    Returns:
        match: (B, A) int32: 1 object, -1 background, 0 not sampled.
        deltas: (B, A, 4) float32 in units of `box_deviation`, 0 where no object.
    """
    anchors = ops.convert_to_tensor(anchors, dtype="float32")
    boxes = ops.cast(boxes, "float32")
    count = anchors.shape[0]
    overlap, instance, on_crowd, is_best = _match_anchors(anchors, class_ids, boxes)
    objects = is_best | (overlap >= ANCHOR_OBJECT)
    background = (overlap < ANCHOR_BACKGROUND) & ~on_crowd & ~objects

    object_limit = min(anchors_per_image // 2, count)
    object_index, object_chosen = _choose(objects, noise, object_limit)
    objects_chosen = ops.sum(ops.cast(object_chosen, "int32"), axis=-1, keepdims=True)
    background_limit = min(anchors_per_image, count)
    background_index, background_chosen = _choose(background, noise, background_limit)
    rank = ops.arange(background_limit, dtype="int32")
    background_chosen &= rank < anchors_per_image - objects_chosen

    signs = [ops.cast(object_chosen, "int32"), -ops.cast(background_chosen, "int32")]
    match = scatter_rows(
        ops.concatenate(signs, axis=1), ops.concatenate([object_index, background_index], axis=1), count
    )
    deltas = encode_deltas(anchors, gather_rows(boxes, instance))
    deltas = deltas / ops.convert_to_tensor(box_deviation, dtype="float32")
    return match, ops.where((match == 1)[..., None], deltas, 0.0)


def _match_anchors(anchors, class_ids, boxes):
    """How each anchor lies to the instances.

    Instance by instance: all pairs at once would be 26 million for a 1024 x 1024 image, most of them padding.

    Returns:
        overlap: (B, A) float32, highest IoU with an instance.
        instance: (B, A) int32, which instance that is, the first of several; 0 if there is none.
        on_crowd: (B, A) bool, can't be background.
        is_best: (B, A) bool, no anchor overlaps some instance more.
    """
    if loops_wait(boxes):
        from maskrcnn.network import without_loops

        return without_loops.match_anchors(anchors, class_ids, boxes, _is_on, EQUAL_OVERLAP)
    anchor_edges = [ops.expand_dims(edge, 0) for edge in edges(anchors)]  # (1, A) each
    slots = ops.arange(1, class_ids.shape[1] + 1, dtype="int32")
    used = ops.max(ops.where(class_ids != 0, slots, 0))  # no instance in any image from this slot on

    def unfinished(slot, *_):
        return slot < used

    def match_slot(slot, overlap, instance, on_crowd, is_best):
        box_edges = [
            ops.expand_dims(edge, -1) for edge in edges(ops.take(boxes, slot, axis=1))
        ]  # (B, 1) each
        class_id = ops.expand_dims(ops.take(class_ids, slot, axis=1), -1)
        slot_overlap = iou_of_edges(box_edges, anchor_edges)  # (B, A)
        on_crowd |= (class_id < 0) & _is_on(
            slot_overlap, area_of_edges(anchor_edges), area_of_edges(box_edges)
        )
        slot_overlap = ops.where(class_id > 0, slot_overlap, 0.0)
        best = ops.max(slot_overlap, axis=-1, keepdims=True)
        is_best |= slot_overlap >= ops.where(best > 0, best - EQUAL_OVERLAP, 2.0)
        instance = ops.where(slot_overlap > overlap, slot, instance)
        return slot + 1, ops.maximum(overlap, slot_overlap), instance, on_crowd, is_best

    none = ops.zeros_like(boxes[:, 0, :1]) + ops.zeros_like(anchor_edges[0])  # (B, A)
    no_instance = ops.cast(none, "int32")
    start = (
        ops.convert_to_tensor(0, dtype="int32"),
        none,
        no_instance,
        no_instance > 0,
        no_instance > 0,
    )
    return ops.while_loop(unfinished, match_slot, start)[1:]


def _is_on(overlap, area, crowd_area):
    """Whether boxes of an area lie on a crowd, by their IoU with it; shapes broadcast."""
    inside = overlap / (1 + overlap) * (area + crowd_area)
    return (overlap >= CROWD_TOUCHED) | ((overlap > 0) & (inside >= CROWD_COVERED * area))


class RoiTargets(NamedTuple):
    """The sampled regions, objects first, zeros at the end if there are fewer than R."""

    rois: Any  # (B, R, 4) float32, normalised
    class_ids: Any  # (B, R) int32, 0 for background and padding
    deltas: Any  # (B, R, 4) float32 in units of the box deviation, 0 where no object
    masks: Any  # (B, R, mask height, mask width) float32, 0 or 1, 0 where no object


def roi_targets(
    rois,
    class_ids,
    boxes,
    masks,
    noise,
    *,
    image_shape,
    count,
    positive_share,
    box_deviation,
    mask_shape=(28, 28),
    mini_masks=False,
    pixels=False,
):
    """A sample of the proposals and what the heads should make of them.

    A proposal is an object from an IoU of 0.5 with an instance, else background, unless it lies on a crowd.
    Background fills the sample up. The legacy models took background in a fixed ratio to the objects found,
    so they learnt nothing from an image without objects.

    Args:
        rois: (B, P, 4) float32, normalised proposals; zero rows are padding.
        class_ids: (B, N) int32.
        boxes: (B, N, 4) float32, pixels.
        masks: (B, M, mh, mw) uint8, 0 or 1, M <= N: of the whole image, or of each instance's box (see
            `mini_masks`). Masks of an eighth of the image's width have eight neighbours of a row in the bits
            of a byte.
        noise: (B, P) float32 in [0, 1).
        image_shape: (height, width) of the network's input, pixels.
        count: size of the sample, R.
        positive_share: highest share of objects in the sample, 0 to 1 (see `object_places`).
        box_deviation: four floats, scale of the deltas.
        mask_shape: (height, width) of the target masks.
        mini_masks: what `masks` cover: False the image, True the instance's box.
        pixels: proposals and sampled regions are in pixels, and a mask's cells are sampled in their middles.

    Returns:
        RoiTargets. Nothing flows back through it.
    """
    rois = ops.stop_gradient(ops.cast(rois, "float32"))
    boxes = (keep_pixels if pixels else normalise_boxes)(boxes, image_shape)
    overlaps = iou(rois, boxes)  # (B, P, N)
    areas, box_areas = area_of_edges(edges(rois)), area_of_edges(edges(boxes))
    on_crowds = _is_on(overlaps, areas[:, :, None], box_areas[:, None])  # (B, P, N)
    on_crowd = ops.any(ops.logical_and((class_ids < 0)[:, None], on_crowds), axis=2)  # (B, P)
    overlaps = ops.where((class_ids > 0)[:, None], overlaps, 0.0)
    overlap = ops.max(overlaps, axis=2)
    real = ops.any(rois != 0, axis=-1)
    objects = real & (overlap >= ROI_OBJECT)
    background = real & (overlap < ROI_OBJECT) & ~on_crowd

    proposals = rois.shape[1]
    object_limit = min(object_places(count, positive_share), proposals)
    object_index, object_chosen = _choose(objects, noise, object_limit)  # (B, object_limit)
    background_index, background_chosen = _choose(background, noise, min(count, proposals))
    index = ops.concatenate([object_index, background_index], axis=1)
    chosen = ops.concatenate([object_chosen, background_chosen], axis=1)
    # Close the gap that is left where there are fewer objects than allowed.
    if index.shape[1] < count:
        padding = [[0, 0], [0, count - index.shape[1]]]
        index, chosen = ops.pad(index, padding), ops.pad(chosen, padding)
    order = best_indices(ops.cast(chosen, "float32"), count)  # (B, R), chosen ones first, in order
    index, chosen = gather_rows(index, order), gather_rows(chosen, order)
    is_object = chosen & (
        ops.arange(count) < ops.sum(ops.cast(object_chosen, "int32"), axis=1, keepdims=True)
    )

    sampled = ops.where(chosen[..., None], gather_rows(rois, index), 0.0)  # (B, R, 4)
    instance = gather_rows(ops.cast(ops.argmax(overlaps, axis=2), "int32"), index)  # (B, R)
    instance_boxes = gather_rows(boxes, instance)
    deltas = encode_deltas(sampled, instance_boxes) / ops.convert_to_tensor(box_deviation, dtype="float32")
    first = slice(0, object_limit)  # objects stand at the front: no masks beyond
    mask_rois, frames = sampled[:, first], instance_boxes[:, first]
    if pixels:
        mask_rois, frames = (
            _cell_middles(mask_rois, image_shape, mask_shape),
            normalise_boxes(frames, image_shape),
        )
    packed = not mini_masks and masks.shape[3] != image_shape[1]
    target_masks = _crop_masks(
        masks, instance[:, first], mask_rois, frames if mini_masks else None, mask_shape, packed
    )
    target_masks = ops.where(is_object[:, first, None, None], target_masks, 0.0)
    return RoiTargets(
        rois=sampled,
        class_ids=ops.where(is_object, gather_rows(ops.cast(class_ids, "int32"), instance), 0),
        deltas=ops.where(is_object[..., None], deltas, 0.0),
        masks=ops.pad(target_masks, [[0, 0], [0, count - object_limit], [0, 0], [0, 0]]),
    )


def object_places(count: int, positive_share: float) -> int:
    """How many regions of a sample of `count` may be objects: one at least, else no box is ever learnt."""
    return max(1, int(count * positive_share)) if positive_share > 0 else 0


def _choose(candidates, noise, count):
    """At most `count` candidates (B, n) with the lowest noise: indices (B, count), chosen (B, count) bool."""
    indices = best_indices(ops.where(candidates, -noise, -2.0), count)
    return indices, gather_rows(candidates, indices)


def _cell_middles(rois, image_shape, mask_shape):
    """The normalised boxes whose edges are the middles of the outer cells of masks over `rois` (..., 4),
    pixels.
    """
    cell = (rois[..., 2:] - rois[..., :2]) / ops.convert_to_tensor(mask_shape, dtype="float32")
    middles = ops.concatenate([rois[..., :2] + 0.5 * cell, rois[..., 2:] - 0.5 * cell], axis=-1)
    height, width = image_shape
    last = ops.convert_to_tensor([height - 1, width - 1, height - 1, width - 1], dtype="float32")
    return (middles - 0.5) / last  # a pixel's middle is half a pixel after its edge


def _crop_masks(masks, instance, rois, frames, mask_shape, packed):
    """Each region's part of its instance's mask, resized, 0 or 1.

    Args:
        masks: (B, N, mh, mw) uint8.
        instance: (B, n) int32.
        rois: (B, n, 4) float32, normalised.
        frames: (B, n, 4) float32, normalised: what the masks cover; None for the image.
        mask_shape: (height, width).
        packed: `masks` hold eight pixels in a byte.

    Returns:
        (B, n, height, width) float32.
    """
    if frames is not None:
        low, size = frames[..., :2], frames[..., 2:] - frames[..., :2]
        size = ops.where(size > 0, size, 1.0)
        rois = (rois - ops.concatenate([low, low], axis=-1)) / ops.concatenate([size, size], axis=-1)
    (height, width), wanted = masks.shape[2:], instance.shape[1]
    batch, in_byte = ops.shape(masks)[0], 8 if packed else 1
    rows = sample_axis(rois[..., 0], rois[..., 2], height, mask_shape[0])
    columns = sample_axis(rois[..., 1], rois[..., 3], width * in_byte, mask_shape[1])
    indices, weights = corners(rows, columns, width * in_byte)  # (B, n, h, w, 4)
    # mask by mask: the place of a pixel among those of all masks of an image would outgrow int32
    pixels = gather_rows(
        ops.reshape(gather_rows(masks, instance), (batch * wanted, height * width)),
        ops.reshape(indices // in_byte, (batch * wanted, mask_shape[0] * mask_shape[1] * 4)),
    )
    pixels = ops.reshape(ops.cast(pixels, "int32"), (batch, wanted, *mask_shape, 4))
    if packed:
        pixels = ops.bitwise_and(ops.right_shift(pixels, 7 - indices % 8), 1)
    pixels = ops.cast(pixels, "float32")
    return ops.round(ops.sum(pixels * weights, axis=-1))
