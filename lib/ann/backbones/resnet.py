"""Residual networks as backbones: an image in, feature maps at strides 4, 8, 16 and 32 out.

Layer names, shapes and the epsilon are those of the legacy model files, so their weights fit: convolutions
`res<stage><block>_branch<n>`, normalisations `bn<stage><block>_branch<n>`, branch 1 being the shortcut.
ResNet18 is no part of the legacy files; its layers are named after the same rule.

Batch normalisation follows `training` of the call: False uses the moving statistics, while gamma and
beta can still be trained.
"""

from __future__ import annotations

from string import ascii_lowercase

import keras
from keras import layers

from ann.backbones.initial import initial
from ann.backbones.names import LEGACY, RESNET_BLOCKS, ResNetDetails

EPSILON = LEGACY.epsilon


def build_resnet(name: str, bands: int, details: ResNetDetails = LEGACY) -> keras.Model:
    """The backbone `name`, of any image height and width that are multiples of 32.

    Input: (batch, height, width, bands) float32, scaled pixels.
    Outputs: [C2, C3, C4, C5], (batch, height / stride, width / stride, channels) at strides 4, 8, 16, 32.
    """
    images = keras.Input((None, None, bands), name="input_image")
    x = layers.ZeroPadding2D(3, name="zero_padding2d")(images)
    x = convolution(64, 7, name="conv1", strides=2, padding="valid")(x)
    x = normalisation("bn_conv1", details.epsilon)(x)
    x = layers.Activation("relu", name="activation_conv1")(x)
    # padded by zeros: nothing is below them after a ReLU
    x, padding = _padded(x, details, name="max_pooling2d_padding")
    x = layers.MaxPooling2D(3, strides=2, padding=padding, name="max_pooling2d")(x)

    add_block = _basic_block if name == "resnet18" else _bottleneck_block
    outputs = []
    for index, blocks in enumerate(RESNET_BLOCKS[name]):
        for block in range(blocks):
            x = add_block(
                x,
                name=f"{index + 2}{ascii_lowercase[block]}",
                filters=64 * 2**index,
                strides=2 if index > 0 and block == 0 else 1,
                details=details,
            )
        outputs.append(x)
    return keras.Model(images, outputs, name=name)


def convolution(filters: int, size: int, *, name: str, strides: int = 1, padding: str = "same"):
    """A convolution with bias, initialised for the ReLU that follows it."""
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        kernel_initializer=initial(keras.initializers.HeNormal()),
        name=name,
    )


def normalisation(name: str, epsilon: float = EPSILON, gamma: str = "ones"):
    """A batch normalisation as the legacy files have it; `gamma` names its initialiser."""
    return layers.BatchNormalization(epsilon=epsilon, gamma_initializer=gamma, name=name)


def _padded(x, details: ResNetDetails, *, name: str):
    """The input of a window of 3 x 3 cells with a stride of 2, and the padding that is left to its layer."""
    if not details.symmetric_padding:
        return x, "same"
    return layers.ZeroPadding2D(1, name=name)(x), "valid"


def _bottleneck_block(x, *, name: str, filters: int, strides: int, details: ResNetDetails):
    """1x1, 3x3, 1x1 convolutions; the stride sits on one of the first two, and on the shortcut."""
    first, second = (1, strides) if details.stride_in_3x3 else (strides, 1)
    y = convolution(filters, 1, name=f"res{name}_branch2a", strides=first)(x)
    y = normalisation(f"bn{name}_branch2a", details.epsilon)(y)
    y = layers.Activation("relu", name=f"relu{name}_branch2a")(y)
    padding = "same"
    if second > 1:
        y, padding = _padded(y, details, name=f"pad{name}_branch2b")
    y = convolution(filters, 3, name=f"res{name}_branch2b", strides=second, padding=padding)(y)
    y = normalisation(f"bn{name}_branch2b", details.epsilon)(y)
    y = layers.Activation("relu", name=f"relu{name}_branch2b")(y)
    y = convolution(4 * filters, 1, name=f"res{name}_branch2c")(y)
    return _join(x, y, name=name, last="branch2c", strides=strides, epsilon=details.epsilon)


def _basic_block(x, *, name: str, filters: int, strides: int, details: ResNetDetails):
    """Two 3x3 convolutions; the stride sits on the first of them and on the shortcut."""
    y = convolution(filters, 3, name=f"res{name}_branch2a", strides=strides)(x)
    y = normalisation(f"bn{name}_branch2a", details.epsilon)(y)
    y = layers.Activation("relu", name=f"relu{name}_branch2a")(y)
    y = convolution(filters, 3, name=f"res{name}_branch2b")(y)
    return _join(x, y, name=name, last="branch2b", strides=strides, epsilon=details.epsilon)


def _join(x, y, *, name: str, last: str, strides: int, epsilon: float):
    """Normalise the residual `y` and add it to the shortcut, a projection of `x` where shapes differ.

    A block starts as its shortcut alone (gamma 0), which keeps a deep network trainable from scratch
    although its moving statistics say nothing yet.
    """
    filters = y.shape[-1]
    if strides != 1 or x.shape[-1] != filters:
        x = convolution(filters, 1, name=f"res{name}_branch1", strides=strides)(x)
        y = normalisation(f"bn{name}_{last}", epsilon, gamma="zeros")(y)
        x = normalisation(f"bn{name}_branch1", epsilon)(x)
    else:
        y = normalisation(f"bn{name}_{last}", epsilon, gamma="zeros")(y)
    y = layers.Add(name=f"add{name}")([y, x])
    return layers.Activation("relu", name=f"res{name}_out")(y)
