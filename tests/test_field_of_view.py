"""How far a network sees: checked by changing cells and looking where the output changes."""

import keras
import numpy as np
import pytest
from keras import layers

from ann.inference.field_of_view import reach
from unet.config import UNetConfig
from unet.network.model import build_network


def positive_network(build):
    """A network with positive weights, in which nothing that is seen gets lost."""
    images = keras.Input((None, None, 1))
    network = keras.Model(images, build(images))
    for variable in network.weights:
        variable.assign(np.full(variable.shape, 0.1, np.float32))
    return network


NETWORKS = {
    "one convolution": (1, lambda x: layers.Conv2D(1, 3, padding="same")(x)),
    "an even kernel": (1, lambda x: layers.Conv2D(1, 2, padding="same")(x)),
    "dilated": (1, lambda x: layers.Conv2D(1, 3, padding="same", dilation_rate=3)(x)),
    "half and double": (2, lambda x: layers.UpSampling2D(2)(layers.MaxPooling2D(2)(x))),
    "two levels": (
        2,
        lambda x: layers.Add()(
            [
                layers.Conv2D(1, 3, padding="same")(x),
                layers.Conv2DTranspose(1, 2, strides=2)(
                    layers.Conv2D(1, 3, strides=2, padding="same")(layers.Conv2D(1, 3, padding="same")(x))
                ),
            ]
        ),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_reach_is_the_farthest_cell_that_changes_the_output(name):
    stride, build = NETWORKS[name]
    network = positive_network(build)
    expected, side = 0, 32
    before = np.asarray(keras.ops.convert_to_numpy(network(np.ones((1, side, side, 1)))))[0, :, side // 2, 0]
    for cell in range(side):
        image = np.ones((1, side, side, 1))
        image[0, cell] = 100
        after = np.asarray(keras.ops.convert_to_numpy(network(image)))[0, :, side // 2, 0]
        changed = np.flatnonzero(np.abs(after - before) > 1e-3)
        middle = changed[(changed >= 10) & (changed < side - 10)]
        if len(middle):
            expected = max(expected, int(np.abs(middle - cell).max()))
    assert reach(network, stride) == expected


@pytest.mark.parametrize(
    ("architecture", "cells"),
    [("unet_vgg", 64), ("unet", 122), ("unet_resnet18", 165), ("unet_efficientnet_lite0", 230)],
)
def test_the_reach_of_the_architectures(architecture, cells):
    config = UNetConfig(classes=("road",), backbone=architecture, image_shape=(64, 64))
    assert reach(build_network(config), config.size_multiple) == cells


def test_a_layer_of_unknown_reach_is_an_error():
    with pytest.raises(ValueError, match="GlobalAveragePooling2D"):
        reach(positive_network(lambda x: layers.GlobalAveragePooling2D()(x)), 1)
