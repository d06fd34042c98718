"""Keras layers as OpenVINO operations, for the layers that the network is made of.

OpenVINO's convolutions want the channels first while Keras has them last here, so maps are turned where
they enter and where they leave only.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import openvino
import openvino.opset13 as opset
from keras import layers, ops

from ann.backbones.whole_convolution import WholeConvolution
from ann.weights.layout import all_layers

CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Value:
    """A value of the graph. channels_first: maps that are (n, C, h, w) there, (n, h, w, C) in Keras."""

    output: object  # openvino.Output
    channels_first: bool = False


def unknown_layers(model: keras.Model) -> set[str]:
    """Kinds of layers of a functional model that can't be translated."""
    return {type(layer).__name__ for layer in all_layers(model) if type(layer) not in TRANSLATORS}


def translate(model: keras.Model, shape: tuple[int, ...]):
    """A functional Keras model of one input as an openvino.Model, with inputs of a fixed shape."""
    parameter = opset.parameter(list(shape), np.float32)
    outputs = keras.tree.flatten(_run(model, _Value(parameter.output(0))))
    return openvino.Model([opset.result(_last(value)) for value in outputs], [parameter], model.name)


def _run(model: keras.Model, inputs):
    """Send values through the layers of a functional model."""

    def translator(layer):
        translate_layer = _run if isinstance(layer, keras.Model) else TRANSLATORS[type(layer)]
        return lambda values, **_: translate_layer(layer, values)  # without training= and mask=

    # the walk that Keras' own call and `clone_model` do; there is no public name for it
    return model._run_through_graph(inputs, operation_fn=translator)


def _first(value: _Value):
    """Maps with the channels first, openvino.Output."""
    return value.output if value.channels_first else _turn(value.output, CHANNELS_FIRST)


def _last(value: _Value):
    """A value as it is in Keras, openvino.Output."""
    return _turn(value.output, CHANNELS_LAST) if value.channels_first else value.output


def _turn(output, order):
    return opset.transpose(output, np.int64(order)).output(0)


def _weights(variable, order=None) -> np.ndarray:
    """A variable as float32, its axes in `order`."""
    values = np.asarray(ops.convert_to_numpy(variable), np.float32)
    return np.ascontiguousarray(values if order is None else values.transpose(order))


def _activate(output, activation):
    """`output` after one of Keras' activation functions."""
    name = keras.activations.serialize(activation)
    if name == "linear":
        return output
    functions = {"relu": opset.relu, "sigmoid": opset.sigmoid}
    if name not in functions:
        raise ValueError(f"Expected the activation linear, relu or sigmoid, received {name!r}")
    return functions[name](output).output(0)


def _pass(layer, value):
    return value


def _activation(layer, value):
    return _Value(_activate(value.output, layer.activation), value.channels_first)


def _padding(layer, value):
    (top, bottom), (left, right) = layer.padding
    before, after = np.int64([0, 0, top, left]), np.int64([0, 0, bottom, right])
    return _Value(opset.pad(_first(value), before, after, "constant").output(0), True)


def _convolution(layer, value):
    if layer.groups != 1 or layer.data_format != "channels_last":
        raise ValueError(
            f"Expected a convolution of one group, channels last, received layer {layer.name} "
            f"with groups={layer.groups}, data_format={layer.data_format!r}"
        )
    x = opset.convolution(
        _first(value),
        _weights(layer.kernel, (3, 2, 0, 1)),
        strides=layer.strides,
        pads_begin=[0, 0],
        pads_end=[0, 0],
        dilations=layer.dilation_rate,
        auto_pad="same_upper" if layer.padding == "same" else "valid",
    )
    if layer.use_bias:
        x = opset.add(x, _weights(layer.bias).reshape(1, -1, 1, 1))
    return _Value(_activate(x.output(0), layer.activation), True)


def _transposed_convolution(layer, value):
    if layer.padding != "valid" or layer.output_padding is not None:
        raise ValueError(
            f"Expected a transposed convolution with padding='valid', received layer {layer.name} "
            f"with padding={layer.padding!r}, output_padding={layer.output_padding}"
        )
    kernel = _weights(layer.kernel, (3, 2, 0, 1))  # (height, width, out, in) in Keras
    x = opset.convolution_backprop_data(_first(value), kernel, strides=layer.strides, auto_pad="valid")
    if layer.use_bias:
        x = opset.add(x, _weights(layer.bias).reshape(1, -1, 1, 1))
    return _Value(_activate(x.output(0), layer.activation), True)


def _normalisation(layer, value):
    """Batch normalisation by the moving statistics: a scale and a shift for each channel."""
    scale = 1 / np.sqrt(_weights(layer.moving_variance) + np.float32(layer.epsilon))
    if layer.scale:
        scale = scale * _weights(layer.gamma)
    shift = -_weights(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _weights(layer.beta)
    if value.channels_first:
        scale, shift = scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)
    return _Value(opset.add(opset.multiply(value.output, scale), shift).output(0), value.channels_first)


def _pooling(layer, value):
    x = opset.max_pool(
        _first(value),
        strides=list(layer.strides),
        dilations=[1, 1],
        pads_begin=[0, 0],
        pads_end=[0, 0],
        kernel_shape=list(layer.pool_size),
        auto_pad="same_upper" if layer.padding == "same" else "valid",
    )
    return _Value(x.output(0), True)


def _upsampling(layer, value):
    if layer.interpolation != "nearest":
        raise ValueError(f"Expected interpolation='nearest', received {layer.interpolation!r}")
    x = opset.interpolate(
        _first(value),
        np.float32(layer.size),
        mode="nearest",
        shape_calculation_mode="scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=np.int64([2, 3]),
    )
    return _Value(x.output(0), True)


def _sum(layer, values):
    first, *others = (_first(value) for value in values)
    for other in others:
        first = opset.add(first, other).output(0)
    return _Value(first, True)


def _concatenation(layer, values):
    return _Value(opset.concat([_last(value) for value in values], layer.axis).output(0))


def _reshape(layer, value):
    output = _last(value)
    shape = np.int64([output.shape[0], *layer.target_shape])
    return _Value(opset.reshape(output, shape, special_zero=False).output(0))


def _dense(layer, value):
    x = opset.matmul(_last(value), _weights(layer.kernel, (1, 0)), False, True)
    if layer.use_bias:
        x = opset.add(x, _weights(layer.bias))
    return _Value(_activate(x.output(0), layer.activation))


def _whole_convolution(layer, value):
    output, kernel = _last(value), _weights(layer.kernel)
    kernel = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)
    rows = opset.reshape(output, np.int64([output.shape[0], kernel.shape[1]]), special_zero=False)
    x = opset.add(opset.matmul(rows, kernel, False, True), _weights(layer.bias))
    return _Value(x.output(0))


# (layer, value or list of values) -> value
TRANSLATORS = {
    layers.InputLayer: _pass,
    layers.Activation: _activation,
    layers.Dropout: _pass,
    layers.ZeroPadding2D: _padding,
    layers.Conv2D: _convolution,
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
