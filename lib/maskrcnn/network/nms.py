"""Non-maximum suppression in tiles: a box goes if a better one that stays overlaps it too much.

Going box by box means thousands of tiny steps, an all-pairs matrix means n x n numbers. In between: blocks of
boxes in order of score. A block is checked against the boxes kept so far, settled within itself, and what is
left is kept. It stops as soon as enough boxes are kept, with good scores after a few blocks.

Shapes: B images, n boxes, T boxes in a block, k boxes asked for.
"""

from __future__ import annotations

from keras import ops

from maskrcnn.network.boxes import iou
from maskrcnn.network.picking import gather_rows, loops_wait

BLOCK = 256  # boxes; XLA likes 128 as well, PyTorch and TensorFlow graphs fewer, larger steps


def non_max_suppression(boxes, threshold, count, valid=None, groups=None):
    """Indices of the boxes that remain, in their order, as the greedy algorithm picks them one by one.

    A box is suppressed by an earlier one that is kept and overlaps it with an IoU *above* the threshold.
    A box without area neither suppresses nor is suppressed.

    Args:
        boxes: (n, 4) or (B, n, 4) float32 in any unit, best first.
        threshold: IoU in [0, 1].
        count: how many boxes to keep at most, k.
        valid: (n,) or (B, n) bool, boxes that take part; None for all.
        groups: (n,) or (B, n) int32; only boxes of the same group suppress each other. None for one group.

    Returns:
        indices: (k,) or (B, k) int32, 0 where fewer boxes remain than asked for.
        kept: (k,) or (B, k) bool, which indices count. They stand at the front.
    """
    if len(boxes.shape) == 2:
        single = [None if part is None else ops.expand_dims(part, 0) for part in (valid, groups)]
        indices, kept = non_max_suppression(ops.expand_dims(boxes, 0), threshold, count, *single)
        return indices[0], kept[0]

    boxes = ops.stop_gradient(boxes)
    if valid is None:
        valid = ops.ones_like(boxes[..., 0], dtype="bool")
    if loops_wait(boxes):
        from maskrcnn.network import without_loops

        return without_loops.non_max_suppression(boxes, threshold, count, valid, groups)
    size = min(BLOCK, boxes.shape[1])
    blocks = -(-boxes.shape[1] // size)
    box_blocks = _cut(boxes, size, blocks)  # (blocks, B, T, 4)
    valid_blocks = _cut(valid, size, blocks)
    group_blocks = None if groups is None else _cut(groups, size, blocks)

    numbers = ops.arange(size, dtype="int32")
    slots = ops.expand_dims(ops.arange(count, dtype="int32"), 0)  # (1, k)
    earlier = ops.expand_dims(numbers, 0) < ops.expand_dims(numbers, 1)  # (T, T): column before row
    nothing = ops.zeros_like(boxes[:, 0, 0], dtype="int32")  # (B,)
    no_slots = ops.expand_dims(nothing, 1) + ops.zeros_like(slots)  # (B, k)

    def unfinished(block, kept_boxes, kept_groups, indices, number):
        return (block < blocks) & ops.any(number < count)

    def settle_block(block, kept_boxes, kept_groups, indices, number):
        candidates = ops.take(box_blocks, block, axis=0)  # (B, T, 4)
        candidate_groups = None if groups is None else ops.take(group_blocks, block, axis=0)
        alive = ops.take(valid_blocks, block, axis=0)
        alive &= ~ops.any(_rivals(candidates, candidate_groups, kept_boxes, kept_groups, threshold), axis=-1)
        rivals = earlier & _rivals(candidates, candidate_groups, candidates, candidate_groups, threshold)
        stays = _settle(alive, rivals)

        # Positions in the block, those that stay first: sorting distinct numbers needs no stable sort.
        positions = ops.sort(ops.where(stays, numbers, numbers + size), axis=-1) % size  # (B, T)
        added = ops.sum(ops.cast(stays, "int32"), axis=-1)
        rank = slots - ops.expand_dims(number, 1)  # (B, k)
        fresh = (rank >= 0) & (rank < ops.expand_dims(added, 1))
        source = gather_rows(positions, ops.clip(rank, 0, size - 1))
        kept_boxes = ops.where(ops.expand_dims(fresh, -1), gather_rows(candidates, source), kept_boxes)
        if groups is not None:
            kept_groups = ops.where(fresh, gather_rows(candidate_groups, source), kept_groups)
        indices = ops.where(fresh, block * size + source, indices)
        return block + 1, kept_boxes, kept_groups, indices, ops.minimum(number + added, count)

    no_boxes = ops.cast(ops.stack([no_slots] * 4, axis=-1), boxes.dtype)  # without area: rivals of none
    start = (ops.convert_to_tensor(0, dtype="int32"), no_boxes, no_slots, no_slots, nothing)
    *_, indices, number = ops.while_loop(unfinished, settle_block, start)
    return indices, slots < ops.expand_dims(number, 1)


def _cut(rows, size, blocks):
    """(B, n, ...) -> (blocks, B, size, ...), padded with zeros at the end."""
    rest = tuple(rows.shape[2:])
    padding = [[0, 0], [0, blocks * size - rows.shape[1]]] + [[0, 0]] * len(rest)
    rows = ops.reshape(ops.pad(rows, padding), (ops.shape(rows)[0], blocks, size, *rest))
    return ops.swapaxes(rows, 0, 1)


def _rivals(boxes, groups, others, other_groups, threshold):
    """(B, n, m) bool: pairs of one group that can't both stay."""
    overlapping = iou(boxes, others) > threshold
    if groups is None:
        return overlapping
    return overlapping & (ops.expand_dims(groups, 2) == ops.expand_dims(other_groups, 1))


def _settle(alive, rivals):
    """Who stays of a block: no rival that stays comes earlier.

    Each round fixes at least one more box in order, mostly many, so the fixed point is the greedy answer.

    Args:
        alive: (B, T) bool.
        rivals: (B, T, T) bool, [i, j]: j comes before i and would suppress it.
    """

    def moving(stays, before):
        return ops.any(stays != before)

    def again(stays, _):
        return alive & ~ops.any(rivals & ops.expand_dims(stays, 1), axis=-1), stays

    return ops.while_loop(moving, again, (alive, ~alive))[0]
