"""Region proposal head: for every anchor of a pyramid level, is there an object and where."""

from __future__ import annotations

import keras
from keras import layers, ops

from ann.backbones.initial import initial
from maskrcnn.config import LEGACY, Variant
from maskrcnn.network.picking import gather_rows


def build_region_proposal(channels: int, anchors_per_cell: int, variant: Variant = LEGACY) -> keras.Model:
    """One head for all levels of the pyramid.

    Input: (batch, h, w, channels), a level of the pyramid.
    Outputs, anchors in the order y, x, ratio:
        logits: (batch, h * w * anchors_per_cell, 2) float32, background and object.
        deltas: (batch, h * w * anchors_per_cell, 4) float32, see `boxes.apply_deltas`.
    """
    features = keras.Input((None, None, channels), name="input_rpn_feature_map")
    shared = features
    for name in ("rpn_conv_shared", "rpn_conv_shared2")[: variant.proposal_convolutions]:
        shared = layers.Conv2D(
            variant.proposal_width * channels,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=initial(keras.initializers.HeNormal()),
            name=name,
        )(shared)
    outputs = []
    for name, values in (("rpn_class_raw", 2), ("rpn_bbox_pred", 4)):
        x = layers.Conv2D(
            values * anchors_per_cell,
            1,
            kernel_initializer=initial(keras.initializers.RandomNormal(stddev=0.01)),
            name=name,
        )(shared)
        outputs.append(layers.Reshape((-1, values), dtype="float32", name=f"{name}_rows")(x))
    return keras.Model(features, outputs, name="rpn_model")


def propose_at(rpn: keras.Model, cells, around, anchors):
    """The head's outputs for some anchors.

    Training compares a few hundred of many thousand anchors. The gradient through these alone is that through
    the whole output, at a fraction of its cost, which is otherwise the largest of the network's parts.
    Only for a head with one convolution before its outputs, since that sees the cells around alone.

    Args:
        rpn: see `build_region_proposal`.
        cells: (B, cells, C), all levels of the pyramid in one row.
        around: (cells, 9) int32, see `surrounding_cells`.
        anchors: (B, n) int32.

    Returns:
        logits (B, n, 2) float32, deltas (B, n, 4) float32.
    """
    shared, *heads = (rpn.get_layer(name) for name in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"))
    count, ratios = anchors.shape[1], heads[0].filters // 2
    indices = ops.reshape(ops.take(around, anchors // ratios, axis=0), (-1, count * 9))
    patches = gather_rows(cells, ops.maximum(indices, 0))
    patches = ops.where((indices >= 0)[..., None], patches, 0)  # as the convolution's padding
    x = ops.relu(_apply_once(shared, ops.reshape(patches, (-1, 9 * cells.shape[-1]))))
    ratio = ops.one_hot(ops.reshape(anchors % ratios, (-1,)), ratios, dtype="float32")[..., None]
    outputs = []
    for head in heads:
        values = ops.reshape(ops.cast(_apply_once(head, x), "float32"), (-1, ratios, head.filters // ratios))
        outputs.append(ops.reshape(ops.sum(ratio * values, axis=1), (-1, count, values.shape[-1])))
    return outputs


def _apply_once(convolution, patches):
    """A convolution's output where its kernel covers just the patch: (n, size * size * C) -> (n, filters)."""
    kernel, bias = (ops.cast(values, patches.dtype) for values in (convolution.kernel, convolution.bias))
    return ops.matmul(patches, ops.reshape(kernel, (-1, convolution.filters))) + bias
