"""ImageNet weights: with them the backbone answers as Keras' own; offline the message says what to do."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from ann.backbones import imagenet
from ann.errors import AnnError
from ann.training.seeds import seed_everything
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.model import build_network
from unet.config import UNetConfig
from unet.task import TASK as UNET

MEAN = np.array((123.68, 116.779, 103.939), np.float32)  # what Keras' preprocessing takes off


@pytest.fixture(scope="module")
def source():
    """Keras' ResNet50 as it comes from its repository, but for the values of the weights."""
    seed_everything(0)
    model = keras.applications.ResNet50(weights=None, include_top=False)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weights.shape for weights in layer.get_weights()]
            values = [generator.uniform(0.5, 1.5, shape).astype(np.float32) for shape in shapes]
            values[3] *= 1e-3  # variances so small that the epsilon counts
            layer.set_weights([values[0] * 0.05, *values[1:]])
    return model


def network(bands=3, backbone="resnet50"):
    config = MaskRCNNConfig(
        classes=("roof",),
        backbone=backbone,
        image_shape=(64, 64),
        band_mean=tuple(MEAN[:1]) * bands if bands != 3 else tuple(map(float, MEAN)),
        band_scale=imagenet.DEVIATION if bands == 3 else (imagenet.DEVIATION[0],) * bands,
    )
    return build_network(config)


def values(model, name, images):
    """Output of the layer `name` for images (B, H, W, C)."""
    part = keras.Model(model.inputs[0], model.get_layer(name).output)
    return keras.ops.convert_to_numpy(part(images, training=False))


def test_the_backbone_answers_as_that_of_keras(source):
    ours = network()
    assert "ImageNet" in imagenet.transfer(source, ours.backbone, ours.config)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    flipped, scaled = (pixels - MEAN)[..., ::-1], (pixels - MEAN) / np.array(imagenet.DEVIATION, np.float32)
    expected, received = (
        values(source, "conv1_relu", flipped),
        values(ours.backbone, "activation_conv1", scaled),
    )
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
    # behind the first pooling, which pads on other sides here
    pooled = values(source, "pool1_pool", flipped)
    names = ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
    rest = keras.Model(source.get_layer("pool1_pool").output, [source.get_layer(n).output for n in names])
    ours_rest = keras.Model(ours.backbone.get_layer("max_pooling2d").output, ours.backbone.outputs)
    for theirs, received in zip(rest(pooled), ours_rest(pooled), strict=True):
        theirs = keras.ops.convert_to_numpy(theirs)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(received), theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max()
        )


def test_the_encoder_of_a_unet_which_ends_earlier_gets_its_weights_too(source):
    config = UNetConfig(
        classes=("road",),
        backbone="unet_resnet50",
        image_shape=(64, 64),
        band_mean=tuple(map(float, MEAN)),
        band_scale=imagenet.DEVIATION,
    )
    encoder, whole = UNET.backbone(UNET.build_network(config)), network()
    imagenet.transfer(source, encoder, config)
    imagenet.transfer(source, whole.backbone, whole.config)
    pixels = np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype(np.float32)
    for mine, theirs in zip(encoder(pixels)[1:], whole.backbone(pixels)[:3], strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(theirs), rtol=1e-4, atol=1e-4
        )


def test_images_of_other_bands_get_an_adapted_first_layer(source):
    ours = network(bands=5)
    assert "5" in imagenet.transfer(source, ours.backbone, ours.config)
    kernel = ours.backbone.get_layer("conv1").get_weights()[0]
    expected = source.get_layer("conv1_conv").get_weights()[0][:, :, ::-1] * np.reshape(
        imagenet.DEVIATION, (3, 1)
    )
    np.testing.assert_allclose(kernel.sum(axis=2), expected.sum(axis=2), rtol=1e-4, atol=1e-4)


def test_a_backbone_without_such_weights_is_refused():
    with pytest.raises(AnnError, match="efficientnet_lite0, resnet50, resnet101"):
        imagenet.fetch("resnet18")


def test_offline_the_message_says_what_to_do(tmp_path):
    code = "from ann.backbones import imagenet; imagenet.fetch('resnet50')"
    environment = {
        "KERAS_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "AnnError: The ImageNet weights for resnet50 can't be had" in done.stderr
    assert "leave the flag -i out" in done.stderr
