"""The backbones there are, by the names of the option `backbone`, what their layers are called, and where
ResNets differ; knows no Keras.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKBONES = ("resnet18", "resnet50", "resnet101", "efficientnet_lite0")
STEMS = ("conv1", "stem_conv")  # names that the first convolution can have
TRAINED_AT_ONCE = ("efficientnet_lite0",)  # with ImageNet weights too: no stages, see docs/benchmarks.md
RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
UPPER_LAYERS = r"(res|bn)[45]|block[4-7]"  # how names of layers at strides 16 and 32 begin


@dataclass(frozen=True, kw_only=True)
class ResNetDetails:
    """Where programs build ResNets differently. The defaults are those of the legacy models.

    stride_in_3x3: of a bottleneck block; else in its first 1 x 1 convolution.
    symmetric_padding: strided windows are padded on both sides; else after the end only.
    epsilon: of the batch normalisations.
    """

    stride_in_3x3: bool = False
    symmetric_padding: bool = False
    epsilon: float = 1e-3


LEGACY = ResNetDetails()
