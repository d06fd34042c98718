"""How far a network sees: which cells of its input a cell of its output depends on.

A row of cells is sent through the layers, each cell as the interval of input cells that it depends on. That
counts what depends on the layers' sizes and strides, whatever the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

CELLS_PER_STRIDE = 128  # length of the row; its middle must not see its ends


@dataclass(frozen=True, eq=False)
class _Seen:
    """For each cell of a row the first and the last input cell that it depends on, (n,) int64."""

    first: np.ndarray
    last: np.ndarray

    def window(self, size: int, stride: int, before: int, count: int) -> _Seen:
        """What cells see that look at `size` cells each, from `before` ahead of their number x stride."""
        cells = np.arange(count)[:, None] * stride - before + np.arange(size)
        cells = np.clip(cells, 0, len(self.first) - 1)  # padding shows nothing new
        return _Seen(self.first[cells].min(axis=1), self.last[cells].max(axis=1))


def reach(model: keras.Model, stride: int) -> int:
    """Cells around an output cell that its value depends on, at most, in any direction.

    model: functional, keeps height and width; its inner maps have strides up to `stride`, and the input's
    first row and column lie at a multiple of it.

    Raises:
        ValueError: a layer whose reach is not known, or a network that sees more than can be told.
    """
    count = CELLS_PER_STRIDE * stride
    row = np.arange(count)
    seen = keras.tree.flatten(_run(model, _Seen(row, row)))
    middle = slice(count // 2, count // 2 + stride)
    farthest = 0
    for one in seen:
        first, last = one.first[middle], one.last[middle]
        if first.min() <= 0 or last.max() >= count - 1:
            raise ValueError(f"The network {model.name} sees farther than {count // 2} cells")
        farthest = max(farthest, int((row[middle] - first).max()), int((last - row[middle]).max()))
    return farthest


def _run(model: keras.Model, inputs):
    def follow(layer):
        if isinstance(layer, keras.Model):
            return lambda values, **_: _run(layer, values)
        for kinds, function in FOLLOWED:
            if isinstance(layer, kinds):
                return lambda values, **_: function(layer, values)
        raise ValueError(
            f"Expected a layer whose reach is known, received {layer.name} ({type(layer).__name__})"
        )

    # the walk that Keras' own call does; there is no public name for it
    return model._run_through_graph(inputs, operation_fn=follow)


def _pointwise(layer, values):
    several = keras.tree.flatten(values)
    return _Seen(
        np.minimum.reduce([one.first for one in several]), np.maximum.reduce([one.last for one in several])
    )


def _slide(seen: _Seen, size: int, stride: int, dilation: int, padding: str) -> _Seen:
    """A window of any kind; padding as Keras means it."""
    span = (size - 1) * dilation + 1
    cells = len(seen.first)
    if padding == "valid":
        return seen.window(span, stride, 0, (cells - span) // stride + 1)
    count = -(-cells // stride)
    return seen.window(span, stride, max((count - 1) * stride + span - cells, 0) // 2, count)


def _convolution(layer, seen):
    return _slide(seen, layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0], layer.padding)


def _pooling(layer, seen):
    return _slide(seen, layer.pool_size[0], layer.strides[0], 1, layer.padding)


def _padding(layer, seen):
    before, after = layer.padding[0]
    return seen.window(1, 1, before, len(seen.first) + before + after)


def _resize(layer, seen):
    if layer.interpolation != "nearest":
        raise ValueError(f"Expected interpolation='nearest', received {layer.interpolation!r}")
    return _Seen(np.repeat(seen.first, layer.size[0]), np.repeat(seen.last, layer.size[0]))


def _transposed_convolution(layer, seen):
    if layer.kernel_size != layer.strides:
        raise ValueError(f"Expected a kernel as large as the stride, received layer {layer.name}")
    return _Seen(np.repeat(seen.first, layer.strides[0]), np.repeat(seen.last, layer.strides[0]))


FOLLOWED = (
    (layers.Conv2DTranspose, _transposed_convolution),
    ((layers.Conv2D, layers.DepthwiseConv2D), _convolution),
    (layers.MaxPooling2D, _pooling),
    (layers.ZeroPadding2D, _padding),
    (layers.UpSampling2D, _resize),
    (
        (
            layers.InputLayer,
            layers.Activation,
            layers.ReLU,
            layers.BatchNormalization,
            layers.Dropout,
            layers.Add,
            layers.Concatenate,
        ),
        _pointwise,
    ),
)
