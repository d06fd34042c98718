"""Backbones of Keras' applications: they see what their weights were trained with, whatever the images."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from ann.backbones.applications import build_application, transfer
from ann.backbones.preprocessing import IMAGENET_DEVIATION, IMAGENET_MEAN, imagenet_scaling
from ann.data.samples.scaling import scale_pixels
from ann.training.seeds import seed_everything

SIDE = 64


@pytest.fixture(scope="module")
def mobilenet():
    seed_everything(0)
    source = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(None, None, 3))
    return source, build_application("mobilenetv2", 3)


def test_bytes_are_scaled_exactly_as_for_the_weights(mobilenet):
    source, backbone = mobilenet
    transfer(source, backbone, 3)
    pixels = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    mean, scale = imagenet_scaling("mobilenetv2", (90.0,) * 3, (40.0,) * 3, "uint8")
    expected = source(keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32)))
    found = backbone(scale_pixels(pixels, mean, scale))
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (found, expected)), atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "preprocess"),
    [
        ("densenet121", keras.applications.densenet.preprocess_input),
        ("inceptionv3", keras.applications.inception_v3.preprocess_input),
    ],
)
def test_the_other_scalings_are_those_of_keras(backbone, preprocess):
    pixels = np.arange(0, 255, 5, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    scaled = scale_pixels(pixels[None], *imagenet_scaling(backbone, (0.0,) * 3, (1.0,) * 3, "uint8"))
    np.testing.assert_allclose(scaled, preprocess(pixels[None].copy()), atol=1e-5)


@pytest.mark.parametrize("backbone", ["densenet121", "inceptionv3", "mobilenetv2"])
def test_other_images_look_to_the_weights_as_imagenet_does(backbone):
    """Reflectances whose bands have ImageNet's mean and spread, in other numbers, and a fourth band."""
    usual = np.random.default_rng(0).normal(IMAGENET_MEAN, IMAGENET_DEVIATION, (1, 50, 3))
    reflectance = np.concatenate([usual * 20 + 500, usual[..., :1] * 3], axis=-1)
    mean = [20 * value + 500 for value in IMAGENET_MEAN] + [3 * IMAGENET_MEAN[0]]
    deviation = [20 * value for value in IMAGENET_DEVIATION] + [3 * IMAGENET_DEVIATION[0]]
    seen = scale_pixels(reflectance, *imagenet_scaling(backbone, mean, deviation, "uint16"))
    expected = scale_pixels(usual, *imagenet_scaling(backbone, IMAGENET_MEAN, IMAGENET_DEVIATION, "uint8"))
    np.testing.assert_allclose(seen[..., :3], expected, atol=1e-3)


def test_a_fourth_band_changes_nothing_where_all_bands_are_alike(mobilenet):
    source, backbone = mobilenet
    four = build_application("mobilenetv2", 4)
    transfer(source, four, 4)
    transfer(source, backbone, 3)
    grey = np.random.default_rng(2).normal(size=(1, SIDE, SIDE, 1)).astype(np.float32)
    found = [keras.ops.convert_to_numpy(net(np.repeat(grey, n, -1))) for net, n in ((four, 4), (backbone, 3))]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_layers_are_called_the_same_each_time():
    names = [
        [layer.name for layer in build_application("inceptionv3", 3).layers if layer.weights]
        for _ in range(2)
    ]
    assert names[0] == names[1] and "conv2d_94" in names[0] and len(set(names[0])) == len(names[0])
