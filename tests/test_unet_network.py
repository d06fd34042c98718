"""The U-Nets as published, their losses and the weights of classes."""

from __future__ import annotations

import numpy as np
import pytest

from ann.data.outlines.class_raster import UNKNOWN
from on_backend import run
from unet.config import UNetConfig
from unet.network import losses
from unet.network.model import build_network


def test_the_network_of_the_road_study_has_its_weights():
    network = build_network(UNetConfig(classes=("road",), backbone="unet_vgg"))
    assert network.count_params() == 10_663_873
    assert sum(int(np.prod(variable.shape)) for variable in network.trainable_variables) == 10_655_809


def test_the_plain_network_has_five_levels_and_dropout_on_the_deepest_two():
    network = build_network(UNetConfig(classes=("a", "b"), backbone="unet"))
    for level, channels in enumerate((64, 128, 256, 512, 1024)):
        for number in (1, 2):
            layer = network.get_layer(f"encoder{level}_conv{number}")
            assert (layer.filters, layer.kernel_size) == (channels, (3, 3))
    dropouts = {layer.name: layer.rate for layer in network.layers if "dropout" in layer.name}
    assert dropouts == {"encoder3_dropout": 0.5, "encoder4_dropout": 0.5}
    assert network.get_layer("up0").kernel_size == (2, 2)
    assert network.get_layer("logits").kernel_size == (1, 1)
    assert network.output.shape[-1] == 3


LABELS = np.array([[[1, 0], [UNKNOWN, 1]]], np.int16)


def loss_of(loss, labels, logits, *arguments):
    truth, known = losses.targets(labels, logits.shape[-1])
    return run(lambda logits: loss(truth, known, logits, *arguments), logits)


def test_cross_entropy_leaves_out_cells_of_no_known_class_and_weighs_the_others():
    logits = np.array([[[[0.0], [np.log(3)]], [[99.0], [0.0]]]], np.float32)
    total, count = loss_of(losses.cross_entropy, LABELS, logits)
    assert (total, count) == (pytest.approx(2 * np.log(2) + np.log(4), rel=1e-5), 3)
    total, count = loss_of(losses.cross_entropy, LABELS, logits, (1.0, 5.0))
    assert (total, count) == (pytest.approx(10 * np.log(2) + np.log(4), rel=1e-5), 11)


def test_dice_is_that_of_the_known_cells():
    certain = np.where(LABELS == 1, 50, -50).astype(np.float32)[..., None]
    assert loss_of(losses.dice, LABELS, certain) == (pytest.approx(0, abs=1e-6), 1)
    certain[0, 1, 0] = 50  # where nothing is known
    assert loss_of(losses.dice, LABELS, certain)[0] == pytest.approx(0, abs=1e-6)
    total, _ = loss_of(losses.dice, LABELS, -certain)
    assert total == pytest.approx(1 - 1 / (1 + 1 + 2), rel=1e-5)  # one found, two labelled, none of both


def test_several_classes_are_a_softmax_with_the_background():
    logits = np.zeros((1, 2, 2, 3), np.float32)
    total, count = loss_of(losses.cross_entropy, LABELS, logits)
    assert (total, count) == (pytest.approx(3 * np.log(3), rel=1e-5), 3)
    assert loss_of(losses.dice, LABELS, logits)[1] == 3  # channels
