"""EfficientNet-Lite0 as a backbone: an image in, feature maps at strides 4, 8, 16 and 32 out.

Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019. The Lite networks
of the same authors are made for processors without much arithmetic: no squeeze and excitation, and a ReLU
that is cut off at 6 instead of Swish.

A block widens its input by a 1 x 1 convolution, filters each channel by itself, and narrows the result.
Layers are called `block<stage><block>_<expand, depthwise or project>_<conv or bn>`; the first ones
`stem_conv`, `stem_bn`. Batch normalisation follows `training` of the call, as in the ResNets.
"""

from __future__ import annotations

from string import ascii_lowercase

import keras
from keras import layers

from ann.backbones.initial import initial

EPSILON = 1e-3
STEM_CHANNELS = 32
# of each stage: channels that come out, blocks, size of the kernel, stride of the first block, widening
STAGES = (
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)
LAST_OF_STRIDE = (2, 3, 5, 7)  # stages after which the resolution is halved, or nothing follows


def build_efficientnet_lite0(bands: int) -> keras.Model:
    """The backbone, see `building.build_backbone`; C2 to C5 have 24, 40, 112 and 320 channels."""
    images = keras.Input((None, None, bands), name="input_image")
    x = _convolution(STEM_CHANNELS, 3, name="stem_conv", strides=2, factor=2.0)(images)
    x = layers.Activation("relu6", name="stem_relu")(_normalisation("stem_bn")(x))
    outputs = []
    for stage, (channels, blocks, size, stride, widening) in enumerate(STAGES, start=1):
        for block in range(blocks):
            name = f"block{stage}{ascii_lowercase[block]}"
            x = _block(x, channels, size, stride if block == 0 else 1, widening, name=name)
        if stage in LAST_OF_STRIDE:
            outputs.append(x)
    return keras.Model(images, outputs, name="efficientnet_lite0")


def block_names() -> list[str]:
    """Names of the blocks from the first to the last."""
    return [
        f"block{stage}{ascii_lowercase[block]}"
        for stage, (_, blocks, *_) in enumerate(STAGES, start=1)
        for block in range(blocks)
    ]


def _block(x, channels: int, size: int, strides: int, widening: int, *, name: str):
    y = x
    if widening > 1:
        y = _convolution(widening * x.shape[-1], 1, name=f"{name}_expand_conv", factor=2.0)(y)
        y = layers.Activation("relu6", name=f"{name}_expand_relu")(_normalisation(f"{name}_expand_bn")(y))
    y = layers.DepthwiseConv2D(
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        # each channel sees its own kernel only; Keras would count the inputs of all channels
        depthwise_initializer=initial(keras.initializers.RandomNormal(stddev=(2 / size**2) ** 0.5)),
        dtype="float32",  # in bfloat16 its gradients take four times as long on CPUs
        name=f"{name}_depthwise_conv",
    )(y)
    y = layers.Activation("relu6", name=f"{name}_depthwise_relu")(_normalisation(f"{name}_depthwise_bn")(y))
    y = _convolution(channels, 1, name=f"{name}_project_conv", factor=1.0)(y)
    joined = strides == 1 and x.shape[-1] == channels
    # a block starts as its shortcut alone, as in the ResNets
    y = _normalisation(f"{name}_project_bn", gamma="zeros" if joined else "ones")(y)
    return layers.Add(name=f"{name}_add")([y, x]) if joined else y


def _convolution(channels: int, size: int, *, name: str, strides: int = 1, factor: float):
    """A convolution without bias. factor: of the initial variance, 2 where half is lost to a ReLU."""
    return layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=initial(keras.initializers.VarianceScaling(factor)),
        name=name,
    )


def _normalisation(name: str, gamma: str = "ones"):
    return layers.BatchNormalization(epsilon=EPSILON, gamma_initializer=gamma, name=name)
