"""Feature pyramid: the backbone's maps, joined top down, with the same number of channels each."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ann.backbones.initial import initial


def build_feature_pyramid(backbone_channels: Sequence[int], channels: int) -> keras.Model:
    """The pyramid of `channels` channels over a backbone whose C2..C5 have `backbone_channels`.

    Inputs: [C2, C3, C4, C5], (batch, height / stride, width / stride, channels), strides 4, 8, 16, 32.
    Outputs: [P2, P3, P4, P5, P6], (batch, height / stride, width / stride, channels), strides 4 to 64;
    P6 is every second cell of P5 and serves proposals only.
    """
    inputs = [
        keras.Input((None, None, count), name=f"c{level}") for level, count in enumerate(backbone_channels, 2)
    ]
    merged = {5: _convolution(channels, 1, "fpn_c5p5")(inputs[3])}
    for level in (4, 3, 2):
        above = layers.UpSampling2D(2, interpolation="nearest", name=f"fpn_p{level + 1}upsampled")(
            merged[level + 1]
        )
        lateral = _convolution(channels, 1, f"fpn_c{level}p{level}")(inputs[level - 2])
        merged[level] = layers.Add(name=f"fpn_p{level}add")([above, lateral])
    outputs = {level: _convolution(channels, 3, f"fpn_p{level}")(merged[level]) for level in (5, 2, 3, 4)}
    outputs[6] = layers.MaxPooling2D(1, strides=2, name="fpn_p6")(outputs[5])
    return keras.Model(inputs, [outputs[level] for level in (2, 3, 4, 5, 6)], name="feature_pyramid")


def _convolution(channels: int, size: int, name: str):
    # no ReLU follows, so the variance is kept without the factor for it
    return layers.Conv2D(
        channels,
        size,
        padding="same",
        kernel_initializer=initial(keras.initializers.LecunNormal()),
        name=name,
    )
