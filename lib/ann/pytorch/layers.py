"""Functional Keras models run by PyTorch's own functions.

Keras' layers on PyTorch turn maps from channels last to first and back, add biases by themselves, and
normalise in five passes over float32 copies. Here maps stay as they are in memory (PyTorch's channels_last),
and a batch normalisation by its moving statistics goes into the weights of the convolution before it, so that
it costs nothing. Weights keep their gradients: d loss / d gamma comes through the product of weights and
scale.

What is not known here is left to the Keras layer. Values agree with Keras' to rounding.
"""

from __future__ import annotations

import functools
import math

import keras
import torch
from keras import layers
from torch.nn import functional

from ann.backbones.whole_convolution import WholeConvolution

CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)


def run(model: keras.Model, inputs, training: bool = False):
    """The outputs of a functional model, in its structure; as `model(inputs, training=training)`."""
    outputs = model._run_through_graph(
        keras.tree.map_structure(keras.ops.convert_to_tensor, inputs),
        operation_fn=lambda layer: functools.partial(_run_layer, layer, training),
    )
    return keras.tree.map_structure(_value, outputs)


class _Convolved:
    """The output of a convolution that is not computed yet: a normalisation may come."""

    def __init__(self, layer, inputs):
        self.layer, self.inputs = layer, inputs

    @property
    def has_small_maps(self) -> bool:
        """Whether there are fewer numbers in its maps than in its kernel."""
        batch, height, width, _ = self.inputs.shape
        filters = self.layer.kernel.shape[-1]
        cells = batch * height * width / math.prod(self.layer.strides)
        return cells * filters < math.prod(self.layer.kernel.shape)

    @functools.cached_property
    def value(self):
        return self.scaled(None, self.layer.bias if self.layer.use_bias else None)

    def scaled(self, scale, shift):
        """With the weights times `scale` (channels,), and `shift` (channels,) in place of the bias."""
        kernel = _tensor(self.layer.kernel)
        if isinstance(self.layer, layers.DepthwiseConv2D):  # (h, w, channels, 1)
            kernel = kernel.transpose(2, 3)
        kernel = kernel if scale is None else kernel * scale
        shift = None if shift is None else _tensor(shift)
        return _convolve(self.layer, self.inputs, kernel, shift)


def _run_layer(layer, in_training, inputs, **_):
    if isinstance(layer, keras.Model):
        return run(layer, keras.tree.map_structure(_value, inputs), in_training)
    function = FUNCTIONS.get(type(layer))
    if function is _normalise and (isinstance(inputs, _Convolved) and not (in_training and layer.trainable)):
        return _normalise(layer, inputs)
    inputs = keras.tree.map_structure(_value, inputs)
    if function is None or function is _normalise:
        options = {"training": in_training} if layer._call_has_training_arg else {}
        return layer(inputs, **options)
    return function(layer, inputs)


def _value(value):
    return value.value if isinstance(value, _Convolved) else value


def _tensor(variable):
    """A variable's own float32 weights, whatever dtype Keras would cast them to here."""
    return variable._value if isinstance(variable, keras.Variable) else variable


def _cast(layer, *tensors):
    dtype = getattr(torch, layer.compute_dtype)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _activate(layer, x):
    activation = layer.activation
    return x if activation is keras.activations.linear else activation(x)


def _same_padding(sides, kernel, strides, dilations=(1, 1)):
    """Cells before and after along each axis, [(top, bottom), (left, right)]: the odd one comes after."""
    padding = []
    for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        total = max(0, (-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side)
        padding.append((total // 2, total - total // 2))
    return padding


def _padded(maps, padding, value=0.0):
    """Channels first maps with [(top, bottom), (left, right)] more cells."""
    (top, bottom), (left, right) = padding
    return functional.pad(maps, (left, right, top, bottom), value=value)


def _prepare(layer, x):
    """A convolution, to be computed later if a normalisation may follow."""
    convolved = _Convolved(layer, x)
    return convolved if layer.activation is keras.activations.linear else convolved.value


def _convolve(layer, x, kernel, bias):
    x, bias = _cast(layer, x.permute(CHANNELS_FIRST), bias)
    kernel = kernel.permute(3, 2, 0, 1).to(x.dtype, memory_format=torch.channels_last)
    padding = (0, 0)
    if layer.padding == "same":
        sides = _same_padding(x.shape[2:], layer.kernel_size, layer.strides, layer.dilation_rate)
        if all(before == after for before, after in sides):
            padding = tuple(before for before, _ in sides)
        else:
            x = _padded(x, sides)
    groups = x.shape[1] // kernel.shape[1]
    x = functional.conv2d(x, kernel, bias, layer.strides, padding, layer.dilation_rate, groups)
    return _activate(layer, x.permute(CHANNELS_LAST))


def _normalise(layer, convolved):
    """Batch normalisation by the moving statistics: a scale and a shift for each channel.

    They go into the weights, or are applied to the maps where these are smaller.
    """
    scale = torch.rsqrt(_tensor(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * _tensor(layer.gamma)
    shift = -_tensor(layer.moving_mean)
    if convolved.layer.use_bias:
        shift = shift + _tensor(convolved.layer.bias)
    shift = shift * scale
    if layer.center:
        shift = shift + _tensor(layer.beta)
    if convolved.has_small_maps:
        maps, scale, shift = _cast(layer, convolved.scaled(None, None), scale, shift)
        return torch.addcmul(shift, maps, scale)
    return convolved.scaled(scale, shift)


def _transposed_convolution(layer, x):
    if layer.padding != "valid" or layer.output_padding is not None:
        return layer(x)
    x, kernel, bias = _cast(
        layer, x.permute(CHANNELS_FIRST), _tensor(layer.kernel).permute(3, 2, 0, 1), _tensor(layer.bias)
    )
    x = functional.conv_transpose2d(x, kernel, bias, layer.strides)
    return _activate(layer, x.permute(CHANNELS_LAST))


def _activation(layer, x):
    return _activate(layer, *_cast(layer, x))


def _padding(layer, x):
    return _padded(x.permute(CHANNELS_FIRST), layer.padding).permute(CHANNELS_LAST)


def _pooling(layer, x):
    x = x.permute(CHANNELS_FIRST)
    if layer.padding == "same":
        sides = _same_padding(x.shape[2:], layer.pool_size, layer.strides)
        x = _padded(x, sides, -float("inf"))
    return functional.max_pool2d(x, layer.pool_size, layer.strides).permute(CHANNELS_LAST)


def _upsampling(layer, x):
    if layer.interpolation != "nearest":
        return layer(x)
    x = functional.interpolate(x.permute(CHANNELS_FIRST), scale_factor=layer.size, mode="nearest")
    return x.permute(CHANNELS_LAST)


def _sum(layer, values):
    return functools.reduce(torch.add, _cast(layer, *values))


def _concatenation(layer, values):
    return torch.cat(_cast(layer, *values), dim=layer.axis)


def _reshape(layer, x):
    return x.reshape(x.shape[0], *layer.target_shape).to(getattr(torch, layer.compute_dtype))


def _dense(layer, x):
    x, kernel, bias = _cast(layer, x, _tensor(layer.kernel), _tensor(layer.bias))
    return _activate(layer, functional.linear(x, kernel.T, bias))


def _whole_convolution(layer, x):
    kernel = _tensor(layer.kernel)
    x, kernel, bias = _cast(
        layer, x.reshape(x.shape[0], -1), kernel.reshape(-1, layer.filters), _tensor(layer.bias)
    )
    return functional.linear(x, kernel.T, bias)


FUNCTIONS = {
    layers.Activation: _activation,
    layers.ZeroPadding2D: _padding,
    layers.Conv2D: _prepare,
    layers.DepthwiseConv2D: _prepare,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.BatchNormalization: _normalise,
    layers.MaxPooling2D: _pooling,
    layers.UpSampling2D: _upsampling,
    layers.Add: _sum,
    layers.Concatenate: _concatenation,
    layers.Reshape: _reshape,
    layers.Dense: _dense,
    WholeConvolution: _whole_convolution,
}
