"""Keras layers as operations of another runtime's graph, for the layers that our networks are made of.

Such graphs have their maps with the channels first while Keras has them last here, so maps are turned where
they enter and where they leave only. A graph is what `OpenVinoGraph` and `OnnxGraph` are: methods that add an
operation and return its output. Constants are NumPy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import layers, ops

from ann.backbones.whole_convolution import WholeConvolution
from ann.weights.layout import all_layers

CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)


class Graph(Protocol):
    """Operations of a runtime. Maps are (n, C, h, w); outputs are of the runtime's own type."""

    def transpose(self, x, order): ...

    def pad(self, x, before, after):
        """Zeros before and after along the axes of maps."""

    def convolution(self, x, kernel, *, strides, dilations, same):
        """kernel: (out, in, h, w); same: zeros around, more of them after, so that h and w are kept."""

    def depthwise_convolution(self, x, kernel, *, strides, dilations, same):
        """Each channel by its own kernel, (channels, 1, h, w)."""

    def transposed_convolution(self, x, kernel, *, strides):
        """kernel: (in, out, h, w)."""

    def max_pool(self, x, *, size, strides, same): ...

    def repeat(self, x, factors):
        """Each cell of maps repeated along (h, w)."""

    def add(self, x, y): ...

    def multiply(self, x, y): ...

    def matmul(self, x, matrix):
        """matrix: (in, out)."""

    def reshape(self, x, shape):
        """shape: of what follows the first axis, which is kept; -1: whatever is left."""

    def concatenate(self, values, axis): ...

    def relu(self, x): ...

    def relu6(self, x): ...

    def sigmoid(self, x): ...


@dataclass(frozen=True)
class Value:
    """A value of a graph. channels_first: maps that are (n, C, h, w) there, (n, h, w, C) in Keras."""

    output: Any
    channels_first: bool = False


def check_layers(model: keras.Model) -> None:
    """See that all layers can be translated.

    Raises:
        ValueError: one of them can't.
    """
    unknown = {type(layer).__name__ for layer in all_layers(model) if type(layer) not in TRANSLATORS}
    if unknown:
        raise ValueError(f"Expected layers that can be translated, received {', '.join(sorted(unknown))}")


def translate(model: keras.Model, graph: Graph, value: Value) -> list[Value]:
    """Send a value through a functional Keras model of one input; returns its outputs.

    Raises:
        ValueError: a layer that can't be translated.
    """
    check_layers(model)
    return keras.tree.flatten(_run(model, graph, value))


def channels_first(graph: Graph, value: Value):
    """Maps with the channels first."""
    return value.output if value.channels_first else graph.transpose(value.output, CHANNELS_FIRST)


def as_in_keras(graph: Graph, value: Value):
    """A value with its axes in the order of Keras."""
    return graph.transpose(value.output, CHANNELS_LAST) if value.channels_first else value.output


def _run(model: keras.Model, graph: Graph, inputs):
    """Send values through the layers of a functional model."""

    def translator(layer):
        translate_layer = _run if isinstance(layer, keras.Model) else TRANSLATORS[type(layer)]
        return lambda values, **_: translate_layer(layer, graph, values)  # without training= and mask=

    # the walk that Keras' own call and `clone_model` do; there is no public name for it
    return model._run_through_graph(inputs, operation_fn=translator)


def _weights(variable, order=None) -> np.ndarray:
    """A variable as float32, its axes in `order`."""
    values = np.asarray(ops.convert_to_numpy(variable), np.float32)
    return np.ascontiguousarray(values if order is None else values.transpose(order))


def _per_channel(values: np.ndarray) -> np.ndarray:
    """(C,) for maps with the channels first."""
    return values.reshape(1, -1, 1, 1)


def _activate(graph: Graph, output, activation):
    """`output` after one of Keras' activation functions."""
    name = activation.__name__  # to serialise it Keras would import TensorFlow, whatever the backend
    if name == "linear":
        return output
    if name not in ("relu", "relu6", "sigmoid"):
        raise ValueError(f"Expected the activation linear, relu, relu6 or sigmoid, received {name!r}")
    return getattr(graph, name)(output)


def _pass(layer, graph, value):
    return value


def _activation(layer, graph, value):
    return Value(_activate(graph, value.output, layer.activation), value.channels_first)


def _padding(layer, graph, value):
    (top, bottom), (left, right) = layer.padding
    x = channels_first(graph, value)
    return Value(graph.pad(x, (0, 0, top, left), (0, 0, bottom, right)), True)


def _convolution(layer, graph, value):
    if layer.groups != 1 or layer.data_format != "channels_last":
        raise ValueError(
            f"Expected a convolution of one group, channels last, received layer {layer.name} "
            f"with groups={layer.groups}, data_format={layer.data_format!r}"
        )
    x = graph.convolution(
        channels_first(graph, value),
        _weights(layer.kernel, (3, 2, 0, 1)),
        strides=layer.strides,
        dilations=layer.dilation_rate,
        same=layer.padding == "same",
    )
    return _finish_convolution(layer, graph, x)


def _depthwise_convolution(layer, graph, value):
    if layer.depth_multiplier != 1 or layer.data_format != "channels_last":
        raise ValueError(
            f"Expected one kernel a channel, channels last, received layer {layer.name} "
            f"with depth_multiplier={layer.depth_multiplier}, data_format={layer.data_format!r}"
        )
    x = graph.depthwise_convolution(
        channels_first(graph, value),
        _weights(layer.kernel, (2, 3, 0, 1)),
        strides=layer.strides,
        dilations=layer.dilation_rate,
        same=layer.padding == "same",
    )
    return _finish_convolution(layer, graph, x)


def _transposed_convolution(layer, graph, value):
    if layer.padding != "valid" or layer.output_padding is not None:
        raise ValueError(
            f"Expected a transposed convolution with padding='valid', received layer {layer.name} "
            f"with padding={layer.padding!r}, output_padding={layer.output_padding}"
        )
    kernel = _weights(layer.kernel, (3, 2, 0, 1))  # (height, width, out, in) in Keras
    x = graph.transposed_convolution(channels_first(graph, value), kernel, strides=layer.strides)
    return _finish_convolution(layer, graph, x)


def _finish_convolution(layer, graph, x):
    if layer.use_bias:
        x = graph.add(x, _per_channel(_weights(layer.bias)))
    return Value(_activate(graph, x, layer.activation), True)


def _normalisation(layer, graph, value):
    """Batch normalisation by the moving statistics: a scale and a shift for each channel."""
    scale = 1 / np.sqrt(_weights(layer.moving_variance) + np.float32(layer.epsilon))
    if layer.scale:
        scale = scale * _weights(layer.gamma)
    shift = -_weights(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _weights(layer.beta)
    if value.channels_first:
        scale, shift = _per_channel(scale), _per_channel(shift)
    return Value(graph.add(graph.multiply(value.output, scale), shift), value.channels_first)


def _pooling(layer, graph, value):
    x = graph.max_pool(
        channels_first(graph, value),
        size=layer.pool_size,
        strides=layer.strides,
        same=layer.padding == "same",
    )
    return Value(x, True)


def _upsampling(layer, graph, value):
    if layer.interpolation != "nearest":
        raise ValueError(f"Expected interpolation='nearest', received {layer.interpolation!r}")
    return Value(graph.repeat(channels_first(graph, value), layer.size), True)


def _sum(layer, graph, values):
    first, *others = (channels_first(graph, value) for value in values)
    for other in others:
        first = graph.add(first, other)
    return Value(first, True)


def _concatenation(layer, graph, values):
    if layer.axis in (-1, 3) and any(value.channels_first for value in values):  # a U-Net's image has few
        return Value(graph.concatenate([channels_first(graph, value) for value in values], 1), True)
    return Value(graph.concatenate([as_in_keras(graph, value) for value in values], layer.axis))


def _reshape(layer, graph, value):
    return Value(graph.reshape(as_in_keras(graph, value), layer.target_shape))


def _dense(layer, graph, value):
    x = graph.matmul(as_in_keras(graph, value), _weights(layer.kernel))
    if layer.use_bias:
        x = graph.add(x, _weights(layer.bias))
    return Value(_activate(graph, x, layer.activation))


def _whole_convolution(layer, graph, value):
    # maps are taken as they lie there: turning the kernel costs nothing
    kernel = _weights(layer.kernel, (2, 0, 1, 3) if value.channels_first else None)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    x = graph.matmul(graph.reshape(value.output, (len(kernel),)), kernel)
    return Value(graph.add(x, _weights(layer.bias)))


# (layer, graph, value or list of values) -> value
TRANSLATORS = {
    layers.InputLayer: _pass,
    layers.Activation: _activation,
    layers.Dropout: _pass,
    layers.ZeroPadding2D: _padding,
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise_convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.BatchNormalization: _normalisation,
    layers.MaxPooling2D: _pooling,
    layers.UpSampling2D: _upsampling,
    layers.Add: _sum,
    layers.Concatenate: _concatenation,
    layers.Reshape: _reshape,
    layers.Dense: _dense,
    WholeConvolution: _whole_convolution,
}
