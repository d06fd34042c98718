"""Operations of OpenVINO, see `graph_layers`."""

from __future__ import annotations

import keras
import numpy as np
import openvino
import openvino.opset13 as opset

from ann.inference.graph_layers import Value, as_in_keras, translate

NOTHING = [0, 0]


def openvino_model(model: keras.Model, shape: tuple[int, ...]) -> openvino.Model:
    """A functional Keras model of one input, with inputs of a fixed shape."""
    graph = OpenVinoGraph()
    parameter = opset.parameter(list(shape), np.float32)
    outputs = translate(model, graph, Value(parameter.output(0)))
    results = [opset.result(as_in_keras(graph, value)) for value in outputs]
    return openvino.Model(results, [parameter], model.name)


class OpenVinoGraph:
    """Values are openvino.Output. Kernels are made constants here: operations would make lists of them."""

    def transpose(self, x, order):
        return opset.transpose(x, np.int64(order)).output(0)

    def pad(self, x, before, after):
        return opset.pad(x, np.int64(before), np.int64(after), "constant").output(0)

    def convolution(self, x, kernel, *, strides, dilations, same):
        auto_pad = "same_upper" if same else "valid"
        return opset.convolution(
            x, opset.constant(kernel), list(strides), NOTHING, NOTHING, list(dilations), auto_pad=auto_pad
        ).output(0)

    def depthwise_convolution(self, x, kernel, *, strides, dilations, same):
        auto_pad = "same_upper" if same else "valid"
        kernel = opset.constant(kernel[:, None])
        return opset.group_convolution(
            x, kernel, list(strides), NOTHING, NOTHING, list(dilations), auto_pad=auto_pad
        ).output(0)

    def transposed_convolution(self, x, kernel, *, strides):
        kernel = opset.constant(kernel)
        return opset.convolution_backprop_data(x, kernel, strides=list(strides), auto_pad="valid").output(0)

    def max_pool(self, x, *, size, strides, same):
        auto_pad = "same_upper" if same else "valid"
        return opset.max_pool(
            x, list(strides), [1, 1], NOTHING, NOTHING, list(size), auto_pad=auto_pad
        ).output(0)

    def repeat(self, x, factors):
        return opset.interpolate(
            x,
            np.float32(factors),
            mode="nearest",
            shape_calculation_mode="scales",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            axes=np.int64([2, 3]),
        ).output(0)

    def add(self, x, y):
        return opset.add(x, y).output(0)

    def multiply(self, x, y):
        return opset.multiply(x, y).output(0)

    def matmul(self, x, matrix):
        # as (out, in): the form that its CPU kernels take without a copy
        return opset.matmul(x, opset.constant(np.ascontiguousarray(matrix.T)), False, True).output(0)

    def reshape(self, x, shape):
        return opset.reshape(x, np.int64([0, *shape]), special_zero=True).output(0)

    def concatenate(self, values, axis):
        return opset.concat(values, axis).output(0)

    def relu(self, x):
        return opset.relu(x).output(0)

    def relu6(self, x):
        return opset.clamp(x, 0.0, 6.0).output(0)

    def sigmoid(self, x):
        return opset.sigmoid(x).output(0)
