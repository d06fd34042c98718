"""A U-Net at work: how scenes are cut for it, and what makes probabilities of images."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from ann.inference.cells import CellSettings, halo, smallest_tile
from ann.inference.compilation import compile_function, compile_model
from ann.inference.field_of_view import reach
from ann.inference.openvino import Part, choose_runtime, part_compiler
from ann.inference.tile_rows import NetworkInput
from ann.weights import ModelFile, load_weights
from ann.weights.layout import layer_groups
from unet.config import UNetConfig
from unet.network.losses import probabilities
from unet.network.model import build_network

SIDE = 1024  # pixels of tiles, where nothing else is asked for


def cell_settings(
    network: keras.Model,
    config: UNetConfig,
    *,
    side: int | None = None,
    largest: int | None = None,
    batch_size: int = 1,
) -> CellSettings:
    """How scenes are cut.

    side: of tiles, pixels; by default large enough that little is computed twice, but not larger than what
    scenes of at most `largest` pixels a side need.

    Raises:
        AnnError: a side that the network can't take.
    """
    stride = config.size_multiple
    seen = reach(network, stride)
    if side is None:
        side = max(SIDE, smallest_tile(seen, stride))
        if largest is not None:
            side = min(side, -(-largest // stride) * stride + 2 * halo(seen, stride))
    given = NetworkInput(
        tile_shape=(side, side),
        band_mean=config.band_mean,
        band_scale=config.band_scale,
        batch_size=batch_size,
    )
    return CellSettings(given=given, reach=seen, stride=stride)


def probability_network(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """images (B, H, W, bands) float32, scaled -> probabilities (B, H, W, K) float32, see `losses`.

    Later changes of the network's weights are seen.
    """
    logits = compile_model(network)
    finish = compile_function(probabilities)
    return lambda images: ops.convert_to_numpy(finish(logits(images)))


def fastest_network(
    network: keras.Model, *, keras_only: bool = False, threads: int = 0
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """As `probability_network`, on the fastest runtime there is, and what that is called.

    That is OpenVINO where it is installed and Keras has no GPU, in float32, so that values don't depend on
    where a tile lies.
    """
    with_openvino, runtime = choose_runtime(keras_only=keras_only, precision="float32")
    if not with_openvino:
        return probability_network(network), runtime
    part = Part(network, part_compiler(threads=threads, precision="f32"))
    finish = compile_function(probabilities)
    return lambda images: ops.convert_to_numpy(finish(np.array(part(images)))), runtime


def load_network(model: ModelFile) -> keras.Model:
    """The network with a file's weights.

    Raises:
        ModelFileError: the file lacks a part of the network.
    """
    network = build_network(model.config)
    load_weights(layer_groups(network), model).require_complete(model)
    return network
