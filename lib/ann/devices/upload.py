"""Batches on their way to the device while it works on others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import keras

from ann.devices.available import gpu_in_use


def uploader() -> Callable[[Mapping], Mapping]:
    """What puts the arrays of a batch on the GPU that this thread computes on, called by any thread.

    Batches stay as they are on a CPU, and where JAX or TensorFlow spread them over several devices.
    """
    backend = keras.backend.backend()
    if gpu_in_use():
        if backend == "torch":
            from ann.pytorch.graphs import keras_device
            from ann.pytorch.uploads import upload_arrays

            return functools.partial(upload_arrays, device=keras_device())
        if backend == "jax" and keras.distribution.distribution() is None:
            import jax

            return jax.device_put
    return lambda batch: batch
