"""Region proposal head: for every anchor of a pyramid level, is there an object and where."""

from __future__ import annotations

import keras
from keras import layers


def build_region_proposal(channels: int, anchors_per_cell: int) -> keras.Model:
    """One head for all levels of the pyramid.

    Input: (batch, h, w, channels), a level of the pyramid.
    Outputs, anchors in the order y, x, ratio:
        logits: (batch, h * w * anchors_per_cell, 2) float32, background and object.
        deltas: (batch, h * w * anchors_per_cell, 4) float32, see `boxes.apply_deltas`.
    """
    features = keras.Input((None, None, channels), name="input_rpn_feature_map")
    shared = layers.Conv2D(
        2 * channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=keras.initializers.HeNormal(),
        name="rpn_conv_shared",
    )(features)
    outputs = []
    for name, values in (("rpn_class_raw", 2), ("rpn_bbox_pred", 4)):
        x = layers.Conv2D(
            values * anchors_per_cell,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=name,
        )(shared)
        outputs.append(layers.Reshape((-1, values), dtype="float32", name=f"{name}_rows")(x))
    return keras.Model(features, outputs, name="rpn_model")
