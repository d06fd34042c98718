"""Losses of a class for each cell, as (sum, count): cross entropy and Dice.

Shapes: B images of H x W cells, K channels. labels (B, H, W) int: 0 the background, then the classes,
negative where nothing is known: those cells count nowhere.
"""

from __future__ import annotations

import keras
from keras import ops


def targets(labels, channels: int):
    """What the outputs should be, (B, H, W, K) float32, and which cells count, (B, H, W, 1) float32.

    With a single channel it is 1 where there is the class; else channel k is 1 where the label is k.
    """
    known = ops.cast(labels >= 0, "float32")[..., None]
    labels = ops.maximum(ops.cast(labels, "int32"), 0)
    if channels == 1:
        return ops.cast(labels == 1, "float32")[..., None], known
    return ops.one_hot(labels, channels, dtype="float32"), known


def probabilities(logits):
    """Logits (..., K) as probabilities: a sigmoid for one channel, else a softmax; float32."""
    logits = ops.cast(logits, "float32")
    return ops.sigmoid(logits) if logits.shape[-1] == 1 else ops.softmax(logits, axis=-1)


def cross_entropy(truth, known, logits, class_weights=None):
    """(sum, count) over the cells that count; with weights, those of their classes are summed and counted.

    class_weights: (2 or K,) of the background and each class.
    """
    if logits.shape[-1] == 1:
        loss = keras.losses.binary_crossentropy(truth, logits, from_logits=True)[..., None]
        both = ops.concatenate([1 - truth, truth], axis=-1)
    else:
        loss = keras.losses.categorical_crossentropy(truth, logits, from_logits=True)[..., None]
        both = truth
    weights = known
    if class_weights is not None:
        weights = known * ops.sum(
            both * ops.convert_to_tensor(class_weights, "float32"), axis=-1, keepdims=True
        )
    return ops.sum(loss * weights), ops.sum(weights)


def dice(truth, known, logits):
    """1 - Dice coefficient of each image and channel, (sum, count).

    Milletari, Navab, Ahmadi, "V-Net", 2016. One cell is added above and below the fraction, so that an image
    without a class costs what is wrongly found of it, and nothing if nothing is.
    """
    found = probabilities(logits) * known
    truth = truth * known
    both = ops.sum(found * truth, axis=(1, 2))  # (B, K)
    either = ops.sum(found, axis=(1, 2)) + ops.sum(truth, axis=(1, 2))
    values = 1 - (2 * both + 1) / (either + 1)
    return ops.sum(values), ops.sum(ops.ones_like(values))
