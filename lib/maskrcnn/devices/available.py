"""Which devices Keras' backend offers."""

from __future__ import annotations

import keras

from maskrcnn.errors import DeviceError


def list_devices() -> tuple[str, ...]:
    """Names of this machine's GPUs as the backend sees them; without any, of its CPU devices (mostly one)."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        kind = "GPU" if tensorflow.config.list_physical_devices("GPU") else "CPU"
        return tuple(device.name for device in tensorflow.config.list_logical_devices(kind))
    if backend == "jax":
        import jax

        return tuple(str(device) for device in jax.local_devices())
    import torch

    count = torch.cuda.device_count()
    return tuple(torch.cuda.get_device_name(index) for index in range(count)) or ("CPU",)


def check_device_count(count: int) -> tuple[str, ...]:
    """Names of the first `count` devices of this machine.

    Raises:
        DeviceError: there are fewer; the message lists them.
    """
    devices = list_devices()
    if count > len(devices):
        raise DeviceError(
            f"gpu_count={count} asks for more devices than there are: {len(devices)} ({', '.join(devices)}). "
            "Lower gpu_count, or check the driver and that the Keras backend was installed with GPU support"
        )
    return devices[:count]
