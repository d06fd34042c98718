"""Compiled inference on the configured backend.

TensorFlow runs graphs, on CPUs without XLA, which is the faster of both there; JAX compiles and is given the
weights as arguments, for as constants they would be folded and copied; PyTorch records a graph on GPUs, whose
results the next call overwrites, and runs as it is elsewhere. Each callable is compiled once for each set of
input shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from ann.devices.available import gpu_in_use
from ann.layers import run_layers


def compile_function(function: Callable) -> Callable:
    """Compile a function of arrays that reads no variables."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=gpu_in_use())
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "torch":
        import torch

        from ann.pytorch.graphs import Recorded

        return Recorded(torch.no_grad()(function))
    raise ValueError(f"Expected the Keras backend tensorflow, jax or torch, received {backend!r}")


def compile_model(model: keras.Model) -> Callable:
    """Compile `model(inputs, training=False)`; later changes of its weights are seen."""
    if keras.backend.backend() != "jax":
        return compile_function(lambda inputs: run_layers(model, inputs))
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
