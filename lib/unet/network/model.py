"""The U-Nets: an encoder, and a decoder that joins its levels from the deepest up to the image's resolution.

Of a backbone the features at strides 2 to 16 are used. Those at stride 32 would double the network's reach,
and with it the ground that tiles must share, for a view that is wider than the windows it is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ann.backbones.statistics import follow_closely
from unet.config import UNetConfig
from unet.network.encoders import convolution, convolutions, plain_encoder, vgg_encoder

BACKBONE_DECODER = (128, 64, 32, 32)  # channels above a backbone, from stride 8 to 1


def build_network(config: UNetConfig) -> keras.Model:
    """The network that `config` describes, with initial weights, under Keras' global dtype policy.

    Input: (B, H, W, bands) float32, scaled; H and W are multiples of `config.size_multiple`.
    Output: (B, H, W, outputs) float32 logits: one for a single class (a sigmoid makes it a probability),
    else one for the background and one for each class (a softmax).

    Weights are drawn from Keras' global seed generator (`keras.utils.set_random_seed`).
    """
    images = keras.Input((None, None, config.bands), name="images")
    outputs = config.output_count
    if config.backbone == "unet":
        x = join_levels(plain_encoder(images), (512, 256, 128, 64), up="resize", normalise=False)
        size = 1
    elif config.backbone == "unet_vgg":
        x = join_levels(vgg_encoder(images), (256, 128, 64), up="transpose", normalise=True)
        size = 3
    else:
        x = join_levels(backbone_levels(images, config), BACKBONE_DECODER, up="resize", normalise=True)
        size = 3
    x = layers.Conv2D(outputs, size, padding="same", dtype="float32", name="logits")(x)
    network = keras.Model(images, x, name=config.backbone)
    follow_closely(network)
    network.train_batch_norm = True  # see `TrainingModel`
    return network


def backbone_levels(images, config: UNetConfig) -> list:
    """The image itself and a backbone's features at strides 2 to 16."""
    from ann.backbones.building import build_backbone, with_stem

    backbone = with_stem(build_backbone(config.backbone_name, config.bands))
    encoder = keras.Model(backbone.input, backbone.outputs[:-1], name="encoder")
    return [images, *encoder(images)]


def join_levels(levels: Sequence, filters: Sequence[int], *, up: str, normalise: bool):
    """From the deepest level to the first: double the size, append the encoder's level, two convolutions.

    up: "resize" repeats cells and smooths them by a 2 x 2 convolution, "transpose" is a 2 x 2 transposed
    convolution. filters: channels of each step.
    """
    x = levels[-1]
    for step, (skip, count) in enumerate(zip(reversed(levels[:-1]), filters, strict=True)):
        level = len(levels) - 2 - step
        if up == "resize":
            x = layers.UpSampling2D(2, interpolation="nearest", name=f"up{level}_resize")(x)
            x = convolution(x, count, 2, name=f"up{level}", normalise=normalise)
        else:
            x = convolution(x, count, 2, name=f"up{level}", normalise=normalise, transposed=True)
        x = layers.Concatenate(name=f"join{level}")([skip, x])
        x = convolutions(x, count, 2, name=f"decoder{level}", normalise=normalise)
    return x
