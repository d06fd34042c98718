"""A U-Net at work: what makes probabilities of images, and how far it sees."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from ann.backbones.initial import nothing_drawn
from ann.inference.compilation import compile_function, compile_model
from ann.inference.field_of_view import reach
from ann.inference.openvino import Part, choose_runtime, part_compiler
from ann.inference.workers import load_on_devices
from ann.weights import ModelFile, load_weights
from ann.weights.layout import layer_groups
from unet.config import UNetConfig
from unet.network.losses import probabilities
from unet.network.model import build_network


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
    with nothing_drawn():
        network = build_network(model.config)
    load_weights(layer_groups(network), model).require_complete(model)
    return network


def load_networks(
    model: ModelFile, *, device_count: int = 1, keras_only: bool = False, threads: int = 0
) -> tuple[list[Callable[[np.ndarray], np.ndarray]], str, int]:
    """The network on each of several devices as `fastest_network` gives it, what runs it, and its reach.

    Several devices are always Keras' own.

    Raises:
        DeviceError: there are fewer devices.
        ModelFileError: the file lacks a part of the network.
    """
    if device_count > 1:
        loaded, runtime = load_on_devices(lambda: probability_network(load_network(model)), device_count)
        return loaded, runtime, network_reach(model.config)
    network = load_network(model)
    loaded, runtime = fastest_network(network, keras_only=keras_only, threads=threads)
    return [loaded], runtime, reach(network, model.config.size_multiple)


def network_reach(config: UNetConfig) -> int:
    """How many pixels around one a network sees."""
    with nothing_drawn():
        return reach(build_network(config), config.size_multiple)
