"""The backbones by their names."""

from __future__ import annotations

import keras

from ann.backbones.efficientnet import build_efficientnet_lite0
from ann.backbones.names import LEGACY, ResNetDetails
from ann.backbones.resnet import build_resnet

# the last layer before the features at stride 2 are made smaller
STRIDE_2 = ("activation_conv1", "block1a_project_bn")


def build_backbone(name: str, bands: int, details: ResNetDetails = LEGACY) -> keras.Model:
    """The backbone `name`, of any image height and width that are multiples of 32.

    Input: (batch, height, width, bands) float32, scaled pixels.
    Outputs: [C2, C3, C4, C5], (batch, height / stride, width / stride, channels) at strides 4, 8, 16, 32.
    """
    if name == "efficientnet_lite0":
        return build_efficientnet_lite0(bands)
    return build_resnet(name, bands, details)


def with_stem(backbone: keras.Model) -> keras.Model:
    """The backbone with its features at stride 2 as well: [C1, C2, C3, C4, C5]."""
    first = next(layer.output for layer in backbone.layers if layer.name in STRIDE_2)
    return keras.Model(backbone.input, [first, *backbone.outputs], name=backbone.name)
