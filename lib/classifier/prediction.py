"""A classifier at work: what makes probabilities of images."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from ann.backbones.initial import nothing_drawn
from ann.inference.compilation import compile_function, compile_model
from ann.inference.openvino import Part, choose_runtime, part_compiler
from ann.inference.workers import load_on_devices
from ann.weights import ModelFile, load_weights
from ann.weights.layout import layer_groups
from classifier.network.model import build_network

# images (B, H, W, bands) float32, scaled -> probabilities (B, K) float32
Network = Callable[[np.ndarray], np.ndarray]


def probability_network(network: keras.Model) -> Network:
    """A network that gives probabilities; later changes of the weights are seen."""
    logits = compile_model(network)
    finish = compile_function(_probabilities)
    return lambda images: ops.convert_to_numpy(finish(logits(images)))


def load_networks(
    model: ModelFile, *, device_count: int = 1, keras_only: bool = False, threads: int = 0
) -> tuple[list[Network], str]:
    """The network on each of several devices, and what runs it; several devices are always Keras' own.

    Raises:
        DeviceError: there are fewer devices.
        ModelFileError: the file lacks a part of the network.
    """
    if device_count > 1:
        return load_on_devices(lambda: probability_network(load_network(model)), device_count)
    network, runtime = fastest_network(model, keras_only=keras_only, threads=threads)
    return [network], runtime


def fastest_network(model: ModelFile, *, keras_only: bool = False, threads: int = 0) -> tuple[Network, str]:
    """The network of a file as `probability_network`, on the fastest runtime there is, and what that is
    called.

    That is OpenVINO for the backbone where it is installed, knows all layers, and Keras has no GPU; in
    float32, so that results don't depend on the machine.
    """
    network = load_network(model)
    with_openvino, runtime = choose_runtime(keras_only=keras_only, precision="float32")
    if not with_openvino:
        return probability_network(network), runtime
    backbone, *head = network.layers[1:]
    try:
        part = Part(backbone, part_compiler(threads=threads, precision="f32"))
    except ValueError:  # a layer of Keras' applications that it does not know
        return probability_network(network), choose_runtime(keras_only=True)[1]
    x = features = keras.Input(backbone.output_shape[1:])
    for layer in head:
        x = layer(x)
    finish = probability_network(keras.Model(features, x))
    return lambda images: finish(np.array(part(images))), runtime


def _probabilities(logits):
    return ops.softmax(ops.cast(logits, "float32"), axis=-1)


def load_network(model: ModelFile) -> keras.Model:
    """The network with a file's weights.

    Raises:
        ModelFileError: the file lacks a part of the network.
    """
    with nothing_drawn():
        network = build_network(model.config)
    load_weights(layer_groups(network), model).require_complete(model)
    return network
