"""The losses. Each is a pair (sum, count), float32 scalars: the mean is sum / max(count, 1).

They are divided late, so that sums and counts of several devices can be added up first.

Shapes: B images, A anchors, R regions of interest, K classes with the background, h x w a mask.
"""

from __future__ import annotations

import keras
from keras import ops

SMALLEST_PROBABILITY = 1e-7  # keeps the logarithms finite


def rpn_class_loss(match, logits):
    """Cross-entropy of object against background over the anchors that were sampled.

    Args:
        match: (B, A) int32: 1 object, -1 background, 0 not sampled.
        logits: (B, A, 2), background first.
    """
    return _cross_entropy(ops.cast(match == 1, "int32"), logits, sampled=match != 0)


def rpn_box_loss(match, target_deltas, deltas):
    """Smooth L1 of the deltas of the object anchors, the mean over single numbers.

    Args:
        match: (B, A) int32, see `rpn_class_loss`.
        target_deltas: (B, A, 4) float32.
        deltas: (B, A, 4), predicted.
    """
    return _smooth_l1(target_deltas, deltas, sampled=match == 1)


def class_loss(class_ids, logits):
    """Cross-entropy of the classes. Padded regions count as background, as in the legacy models.

    Args:
        class_ids: (B, R) int32, 0 background.
        logits: (B, R, K).
    """
    return _cross_entropy(class_ids, logits, sampled=ops.ones_like(class_ids, dtype="bool"))


def box_loss(class_ids, target_deltas, deltas):
    """Smooth L1 of the deltas for the true class, over the regions that show an object.

    Args:
        class_ids: (B, R) int32, 0 background.
        target_deltas: (B, R, 4) float32.
        deltas: (B, R, K, 4), predicted.
    """
    own = ops.expand_dims(ops.one_hot(class_ids, deltas.shape[2], dtype="float32"), -1)  # (B, R, K, 1)
    return _smooth_l1(
        target_deltas, ops.sum(own * ops.cast(deltas, "float32"), axis=2), sampled=class_ids > 0
    )


def mask_loss(class_ids, target_masks, masks):
    """Binary cross-entropy of the masks for the true class, over the regions that show an object.

    Args:
        class_ids: (B, R) int32, 0 background.
        target_masks: (B, R, h, w) float32, 0 or 1.
        masks: (B, R, h, w, K), predicted probabilities.
    """
    own = ops.one_hot(class_ids, masks.shape[-1], dtype="float32")[:, :, None, None, :]  # (B, R, 1, 1, K)
    masks = ops.sum(own * ops.cast(masks, "float32"), axis=-1)
    masks = ops.clip(masks, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    target_masks = ops.cast(target_masks, "float32")
    entropy = -target_masks * ops.log(masks + SMALLEST_PROBABILITY)
    entropy -= (1.0 - target_masks) * ops.log(1.0 - masks + SMALLEST_PROBABILITY)
    sampled = class_ids > 0
    return _masked_sum(ops.sum(entropy, axis=(2, 3)), sampled), _count(sampled) * float(
        target_masks.shape[2] * target_masks.shape[3]
    )


def weight_loss(variables, decay):
    """L2 penalty: decay times the sum over the variables of the mean of their squares. A scalar, no pair.

    Args:
        variables: those that it applies to (for the legacy models all but batch normalisation's gamma, beta).
        decay: weight of the penalty.
    """
    if keras.config.backend() == "torch" and variables:
        from ann.pytorch.penalty import sum_of_mean_squares

        return decay * sum_of_mean_squares([ops.convert_to_tensor(variable) for variable in variables])
    total = ops.zeros((), dtype="float32")
    for variable in variables:
        total += ops.mean(ops.square(ops.cast(variable, "float32")))
    return decay * total


def _cross_entropy(class_ids, logits, sampled):
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    own = ops.one_hot(class_ids, logits.shape[-1], dtype="float32")
    return _masked_sum(-ops.sum(own * log_probabilities, axis=-1), sampled), _count(sampled)


def _smooth_l1(targets, deltas, sampled):
    """Quadratic below a difference of 1, linear above; four numbers for each sampled row."""
    difference = ops.abs(targets - ops.cast(deltas, "float32"))
    loss = ops.where(difference < 1.0, 0.5 * ops.square(difference), difference - 0.5)
    return _masked_sum(ops.sum(loss, axis=-1), sampled), 4.0 * _count(sampled)


def _masked_sum(loss, sampled):
    return ops.sum(ops.where(sampled, loss, 0.0))


def _count(sampled):
    return ops.sum(ops.cast(sampled, "float32"))
