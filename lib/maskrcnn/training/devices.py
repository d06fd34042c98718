"""Which devices Keras' backend offers, and how a training step is spread over them."""

from __future__ import annotations

import contextlib

import keras

from maskrcnn.errors import DeviceError


def list_devices() -> tuple[str, ...]:
    """Names of the backend's GPUs or, without any, of its CPU devices (one, but for virtual ones)."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        kind = "GPU" if tensorflow.config.list_physical_devices("GPU") else "CPU"
        return tuple(device.name for device in tensorflow.config.list_logical_devices(kind))
    if backend == "jax":
        import jax

        return tuple(str(device) for device in jax.devices())
    import torch

    count = torch.cuda.device_count()
    return tuple(torch.cuda.get_device_name(index) for index in range(count)) or ("CPU",)


def use_devices(count: int) -> contextlib.AbstractContextManager:
    """Make the network that is built and trained inside the returned context use `count` devices.

    Raises:
        DeviceError: fewer devices are present, or the backend can't use several in one process.
    """
    devices = list_devices()
    if count > len(devices):
        raise DeviceError(
            f"gpu_count={count} asks for more devices than there are: {len(devices)} ({', '.join(devices)}). "
            "Lower gpu_count, or check the driver and that the Keras backend was installed with GPU support"
        )
    if count == 1:
        return contextlib.nullcontext()
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return keras.distribution.DataParallel(
            devices=jax.devices()[:count], auto_shard_dataset=False
        ).scope()
    raise DeviceError(
        f"gpu_count={count} needs the Keras backend jax; the configured one, {backend}, trains on one. "
        "Set KERAS_BACKEND=jax"
    )
