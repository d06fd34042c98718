"""Box arithmetic. Every box is (y1, x1, y2, x2), float32, with y2 and x2 exclusive in pixels."""

from __future__ import annotations

from keras import ops

SMALLEST_AREA = 1e-30  # against 0 / 0
LARGEST_LOG_SCALE = 10.0  # e^10 times a pixel leaves any image; more would overflow to inf - inf


def iou(boxes, others):
    """Intersection over union of every box with every other box; 0 where either has no area.

    Args:
        boxes: (..., n, 4) in any unit.
        others: (..., m, 4) in the same unit.

    Returns:
        (..., n, m) float32 in [0, 1].
    """
    return iou_of_edges(edges(ops.expand_dims(boxes, -2)), edges(ops.expand_dims(others, -3)))


def iou_of_edges(box, other):
    """`iou` of boxes given as four arrays y1, x1, y2, x2, whose shapes are broadcast against each other."""
    height = ops.minimum(box[2], other[2]) - ops.maximum(box[0], other[0])
    width = ops.minimum(box[3], other[3]) - ops.maximum(box[1], other[1])
    intersection = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
    union = area_of_edges(box) + area_of_edges(other) - intersection
    return intersection / ops.maximum(union, SMALLEST_AREA)  # an inverted box intersects nothing


def edges(boxes):
    """Boxes (..., 4) as four arrays (...): y1, x1, y2, x2."""
    return tuple(boxes[..., edge] for edge in range(4))


def area_of_edges(box):
    """Area of boxes given as four arrays y1, x1, y2, x2."""
    return (box[2] - box[0]) * (box[3] - box[1])


def apply_deltas(boxes, deltas, largest_log_scale=LARGEST_LOG_SCALE):
    """Move and scale boxes.

    Args:
        boxes: (..., 4) in any unit.
        deltas: (..., 4): shift of the centre as a share of height and of width, then the logarithm of the
            scale of height and of width.
        largest_log_scale: logarithms above are taken for it.

    Returns:
        (..., 4) in the unit of `boxes`.
    """
    height = boxes[..., 2] - boxes[..., 0]
    width = boxes[..., 3] - boxes[..., 1]
    centre_y = boxes[..., 0] + 0.5 * height + deltas[..., 0] * height
    centre_x = boxes[..., 1] + 0.5 * width + deltas[..., 1] * width
    height = height * ops.exp(ops.minimum(deltas[..., 2], largest_log_scale))
    width = width * ops.exp(ops.minimum(deltas[..., 3], largest_log_scale))
    y1 = centre_y - 0.5 * height
    x1 = centre_x - 0.5 * width
    return ops.stack([y1, x1, y1 + height, x1 + width], axis=-1)


def encode_deltas(boxes, targets):
    """The deltas that turn `boxes` into `targets`, undone by `apply_deltas`.

    A box or target without area (padding) gives 0 instead of an infinite delta.

    Args:
        boxes: (..., 4) in any unit.
        targets: (..., 4) in the same unit.

    Returns:
        (..., 4) float32.
    """
    height = boxes[..., 2] - boxes[..., 0]
    width = boxes[..., 3] - boxes[..., 1]
    target_height = targets[..., 2] - targets[..., 0]
    target_width = targets[..., 3] - targets[..., 1]
    solid = (height > 0) & (width > 0) & (target_height > 0) & (target_width > 0)
    height, width, target_height, target_width = (
        ops.where(solid, side, 1.0) for side in (height, width, target_height, target_width)
    )
    shift_y = ((targets[..., 0] + 0.5 * target_height) - (boxes[..., 0] + 0.5 * height)) / height
    shift_x = ((targets[..., 1] + 0.5 * target_width) - (boxes[..., 1] + 0.5 * width)) / width
    deltas = ops.stack(
        [shift_y, shift_x, ops.log(target_height / height), ops.log(target_width / width)], axis=-1
    )
    return ops.where(ops.expand_dims(solid, -1), deltas, 0.0)


def clip_boxes(boxes, windows):
    """Cut boxes at a window; a box outside of it ends up without area on its border.

    Args:
        boxes: (..., n, 4) in any unit.
        windows: (..., 4) in the same unit, one for n boxes.

    Returns:
        (..., n, 4).
    """
    windows = ops.expand_dims(windows, -2)  # (..., 1, 4)
    lowest = ops.concatenate([windows[..., :2], windows[..., :2]], axis=-1)
    highest = ops.concatenate([windows[..., 2:], windows[..., 2:]], axis=-1)
    return ops.maximum(ops.minimum(boxes, highest), lowest)


def normalise_boxes(boxes, image_shape):
    """Boxes in pixels (..., 4) to shares of the image (height, width): the last pixel's centre is at 1."""
    scale, shift = _normalisation(image_shape)
    return (ops.cast(boxes, "float32") - shift) / scale


def denormalise_boxes(boxes, image_shape):
    """Undo `normalise_boxes`: (..., 4) float32, pixels, not rounded."""
    scale, shift = _normalisation(image_shape)
    return boxes * scale + shift


def keep_pixels(boxes, image_shape):
    """In place of `normalise_boxes` where boxes are computed in pixels: (..., 4) float32, as they are."""
    return ops.cast(boxes, "float32")


def shortest_sides(boxes):
    """The shorter side of each box, (...) in the unit of `boxes` (..., 4)."""
    return ops.minimum(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])


def _normalisation(image_shape):
    height, width = image_shape
    scale = ops.convert_to_tensor([height - 1, width - 1, height - 1, width - 1], dtype="float32")
    return scale, ops.convert_to_tensor([0, 0, 1, 1], dtype="float32")
