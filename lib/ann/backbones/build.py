"""Any of the backbones by its name."""

from __future__ import annotations

import keras

from ann.backbones import resnet
from ann.backbones.names import LEGACY, ResNetDetails


def build_backbone(name: str, bands: int, details: ResNetDetails = LEGACY) -> keras.Model:
    """The backbone `name`, for any image height and width that are multiples of 32.

    Input: (batch, height, width, bands) float32, scaled pixels.
    Outputs: [C2, C3, C4, C5], (batch, height / stride, width / stride, channels) at strides 4, 8, 16, 32.
    """
    return resnet.build_backbone(name, bands, details)


def with_stem(backbone: keras.Model) -> keras.Model:
    """The backbone with its features at stride 2 as well: [C1, C2, C3, C4, C5]."""
    return keras.Model(backbone.input, [resnet.stem_output(backbone), *backbone.outputs], name=backbone.name)
