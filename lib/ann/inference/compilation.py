"""Compiled inference on the configured backend.

TensorFlow runs graphs without XLA, which is the faster of both on CPUs; JAX compiles and is given the weights
as arguments, for as constants they would be folded and copied; PyTorch runs as it is, without gradients.
Each callable is compiled once for each set of input shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops


def compile_function(function: Callable) -> Callable:
    """Compile a function of arrays that reads no variables."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=False)
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "torch":
        import torch

        def without_gradient(*arguments):
            with torch.no_grad():
                return function(*keras.tree.map_structure(ops.convert_to_tensor, arguments))

        return without_gradient
    raise ValueError(f"Expected the Keras backend tensorflow, jax or torch, received {backend!r}")


def compile_model(model: keras.Model) -> Callable:
    """Compile `model(inputs, training=False)`; later changes of its weights are seen."""
    if keras.backend.backend() != "jax":
        return compile_function(lambda inputs: model(inputs, training=False))
    import jax

    @jax.jit
    def apply(trainable, other, inputs):
        outputs, _ = model.stateless_call(trainable, other, inputs, training=False)
        return outputs

    def call(inputs):
        trainable = [variable.value for variable in model.trainable_variables]
        other = [variable.value for variable in model.non_trainable_variables]
        return apply(trainable, other, inputs)

    return call
