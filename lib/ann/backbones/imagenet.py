"""ImageNet weights for the backbone, from Keras' own applications or from a package.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016; Keras distributes the authors'
weights, which expect bytes in the order blue, green, red, less their mean.
"""

from __future__ import annotations

from string import ascii_lowercase

import keras
import numpy as np

from ann.backbones import applications, efficientnet_weights
from ann.backbones.names import RESNET_BLOCKS
from ann.backbones.preprocessing import IMAGENET_DEVIATION as DEVIATION
from ann.backbones.preprocessing import IMAGENET_MEAN as MEAN
from ann.backbones.resnet import EPSILON
from ann.config import ModelConfig
from ann.errors import AnnError
from ann.weights.checkpoint import Checkpoint
from ann.weights.loading import adapt_stem, stem_note

APPLICATIONS = {"resnet50": "ResNet50", "resnet101": "ResNet101", **applications.APPLICATIONS}


def fetch(backbone: str) -> keras.Model | Checkpoint:
    """ImageNet weights: Keras' backbone, downloaded once and kept in Keras' cache, or the file of a package.

    Raises:
        AnnError: there are none for this backbone, or they can't be had.
    """
    if backbone == "efficientnet_lite0":
        return efficientnet_weights.fetch()
    if backbone not in APPLICATIONS:
        choice = ", ".join(("efficientnet_lite0", *APPLICATIONS))
        raise AnnError(
            f"There are no ImageNet weights for the backbone {backbone}. Choose one of {choice}, "
            "or leave the flag -i out"
        )
    try:
        return getattr(keras.applications, APPLICATIONS[backbone])(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises bare exceptions here
        raise AnnError(
            f"The ImageNet weights for {backbone} can't be had ({error}). Run this once where the machine is "
            "online, or copy ~/.keras/models from one that is, or leave the flag -i out"
        ) from error


def transfer(source: keras.Model | Checkpoint, backbone: keras.Model, config: ModelConfig) -> str:
    """Give a network's backbone the weights that `fetch` gave; returns a sentence for the user.

    Our input is standardised band by band, so the first kernel is multiplied by the deviation of ImageNet's
    bands: whatever the type of the images, the layers see values as they did in ImageNet. Bands are taken
    to be red, green and blue; for another number see `adapt_stem`. Of other backbones than ResNets the
    model's scaling of the bands has what their weights were trained with, see `preprocessing`.
    """
    bands = config.bands
    if isinstance(source, Checkpoint):
        efficientnet_weights.transfer(source, backbone, bands, MEAN, DEVIATION)
    elif config.backbone_name in applications.APPLICATIONS:
        applications.transfer(source, backbone, bands)
    else:
        _transfer_resnet(source, backbone, config)
    note = "" if bands == len(MEAN) else f". {stem_note(len(MEAN), bands)}"
    return f"The backbone starts from ImageNet weights{note}"


def _transfer_resnet(source, backbone, config):
    kernel, bias = source.get_layer("conv1_conv").get_weights()
    kernel = kernel[:, :, ::-1] * np.array(DEVIATION, np.float32)[:, None]
    backbone.get_layer("conv1").set_weights([adapt_stem(kernel, config.bands), bias])
    _copy_normalisation(source.get_layer("conv1_bn"), backbone.get_layer("bn_conv1"))
    present = {layer.name for layer in backbone.layers}  # a U-Net's encoder ends earlier
    for ours, theirs in _blocks(config.backbone_name):
        if f"res{ours}_branch2a" not in present:
            break
        for branch, place in (("branch1", 0), ("branch2a", 1), ("branch2b", 2), ("branch2c", 3)):
            if place == 0 and not ours.endswith("a"):
                continue  # only the first block of a stage projects its shortcut
            convolution = source.get_layer(f"{theirs}_{place}_conv")
            backbone.get_layer(f"res{ours}_{branch}").set_weights(convolution.get_weights())
            normalisation = source.get_layer(f"{theirs}_{place}_bn")
            _copy_normalisation(normalisation, backbone.get_layer(f"bn{ours}_{branch}"))


def _blocks(backbone):
    """Names of the residual blocks, ours and those of Keras."""
    for index, blocks in enumerate(RESNET_BLOCKS[backbone]):
        for block in range(blocks):
            yield f"{index + 2}{ascii_lowercase[block]}", f"conv{index + 2}_block{block + 1}"


def _copy_normalisation(source, target):
    """Copy gamma, beta, mean and variance; the epsilons differ, which goes into gamma."""
    gamma, beta, mean, variance = source.get_weights()
    gamma = gamma * np.sqrt((variance + EPSILON) / (variance + source.epsilon))
    target.set_weights([gamma, beta, mean, variance])
