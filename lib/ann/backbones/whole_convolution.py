"""A convolution over all of its input."""

from __future__ import annotations

import keras
from keras import layers, ops

from ann.backbones.initial import initial


@keras.saving.register_keras_serializable(package="maskrcnn")
class WholeConvolution(layers.Layer):
    """A convolution whose kernel covers all of its input, so it is one matrix product.

    Input shape: (n, size, size, channels), or (n, channels) with size 1.
    Output shape: (n, filters).
    Its weights have the shapes of a convolution's: kernel (size, size, channels, filters), bias (filters).
    """

    def __init__(self, filters: int, size: int, **options):
        super().__init__(**options)
        self.filters = filters
        self.size = size

    def build(self, input_shape):
        shape = (self.size, self.size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(
            shape=shape, initializer=initial(keras.initializers.HeNormal()), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs):
        rows = self.size * self.size * inputs.shape[-1]
        return (
            ops.matmul(ops.reshape(inputs, (-1, rows)), ops.reshape(self.kernel, (rows, self.filters)))
            + self.bias
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "size": self.size}
