"""The contracting half of a U-Net: an image in, features at falling resolution out.

Shapes: an encoder of L levels gives [level 0, ..., level L - 1], (B, H / stride, W / stride, channels), at
strides that double from one level to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ann.backbones.initial import initial

DROPOUT = 0.5  # on the two deepest levels of the plain U-Net


def convolution(x, filters: int, size: int, *, name: str, normalise: bool, transposed: bool = False):
    """A convolution or, doubling height and width, a transposed one; normalised if asked for; then ReLU."""
    kernel = initial(keras.initializers.HeNormal())
    if transposed:
        x = layers.Conv2DTranspose(
            filters, size, strides=2, padding="valid", kernel_initializer=kernel, name=name
        )(x)
    else:
        x = layers.Conv2D(filters, size, padding="same", kernel_initializer=kernel, name=name)(x)
    if normalise:
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def convolutions(x, filters: int, count: int, *, name: str, normalise: bool):
    """A row of 3 x 3 convolutions."""
    for number in range(1, count + 1):
        x = convolution(x, filters, 3, name=f"{name}_conv{number}", normalise=normalise)
    return x


def plain_encoder(x, filters: Sequence[int] = (64, 128, 256, 512, 1024)) -> list:
    """Two convolutions a level, dropout on the two deepest.

    Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.
    """
    levels = []
    for level, count in enumerate(filters):
        if level:
            x = layers.MaxPooling2D(2, name=f"down{level}")(x)
        x = convolutions(x, count, 2, name=f"encoder{level}", normalise=False)
        if level >= len(filters) - 2:
            x = layers.Dropout(DROPOUT, name=f"encoder{level}_dropout")(x)
        levels.append(x)
    return levels


def vgg_encoder(x) -> list:
    """Blocks of 2, 2, 3 and 3 normalised convolutions, as the first ones of VGG16.

    Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
    """
    levels = []
    for level, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3))):
        if level:
            x = layers.MaxPooling2D(2, name=f"down{level}")(x)
        x = convolutions(x, filters, count, name=f"encoder{level}", normalise=True)
        levels.append(x)
    return levels
