"""Which devices Keras' backend offers."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil

from ann.errors import DeviceError
from ann.packages import configured_backend

# With this environment variable the CPU counts as so many devices, on every backend: for tests, and to see
# how a run on several devices goes without them. They share the cores, so nothing gets faster.
CPU_DEVICES = "MASKRCNN_CPU_DEVICES"


def list_devices() -> tuple[str, ...]:
    """Names of this machine's GPUs as the backend sees them; without any, of its CPU devices (mostly one)."""
    backend = configured_backend()
    split_cpu(backend)
    set_up(backend)
    if backend == "tensorflow":
        import tensorflow

        kind = "GPU" if tensorflow.config.list_physical_devices("GPU") else "CPU"
        return tuple(device.name for device in tensorflow.config.list_logical_devices(kind))
    if backend == "jax":
        import jax

        return tuple(str(device) for device in jax.local_devices())
    import torch

    if torch.cuda.device_count():
        return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    count = cpu_devices()
    return tuple(f"CPU:{number}" for number in range(count)) if count > 1 else ("CPU",)


def gpu_in_use() -> bool:
    """Does Keras' backend run on a GPU (or another accelerator)?"""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        return bool(tensorflow.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


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


def on_device(number: int) -> contextlib.AbstractContextManager:
    """Inside of the context, in this thread, networks are built and run on a device of `list_devices`.

    Of JAX or TensorFlow: with PyTorch each device has a process of its own, see `inference.processes`.
    """
    if configured_backend() == "jax":
        import jax

        return jax.default_device(jax.local_devices()[number])
    import tensorflow

    return tensorflow.device(list_devices()[number])


def cpu_devices() -> int:
    """How many devices the CPU counts as; 1 unless the environment says otherwise."""
    text = os.environ.get(CPU_DEVICES, "1")
    if not text.isdecimal() or not int(text):
        raise DeviceError(f"{CPU_DEVICES}={text} is not a number of devices. Use a number above 0")
    return int(text)


@functools.cache
def set_up(backend: str) -> None:
    """What the backend must know before it computes.

    TensorFlow takes memory of a GPU as it needs it instead of all; JAX keeps what it has compiled in the
    user's cache directory, unless the environment (JAX_COMPILATION_CACHE_DIR) names another.
    """
    if backend == "tensorflow":
        import tensorflow

        for gpu in tensorflow.config.list_physical_devices("GPU"):
            with contextlib.suppress(RuntimeError):  # it is in use already
                tensorflow.config.experimental.set_memory_growth(gpu, True)
    elif backend == "jax":
        import jax

        if jax.config.jax_compilation_cache_dir is None:
            caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            jax.config.update("jax_compilation_cache_dir", os.path.join(caches, "i.ann.maskrcnn", "jax"))


def missing_gpu() -> str:
    """Why the backend computes on the CPU of a machine with an NVIDIA driver; empty elsewhere."""
    if gpu_in_use() or shutil.which("nvidia-smi") is None:
        return ""
    import keras

    backend, reason = keras.backend.backend(), "it finds no GPU, or was not built for GPUs"
    if backend == "torch":
        import torch

        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:  # it says if the driver is too old
            reason = str(error).split("\n")[0]
    return (
        f"This machine has an NVIDIA driver, but {backend} computes on the CPU: {reason}. nvidia-smi shows "
        "GPU and driver; README.md tells what to install"
    )


@functools.cache
def split_cpu(backend: str) -> None:
    """Have the backend see as many CPU devices as the environment says, before it computes."""
    count = cpu_devices()
    if count == 1:
        return
    if backend == "tensorflow":
        import tensorflow

        cpu = tensorflow.config.list_physical_devices("CPU")[0]
        part = tensorflow.config.LogicalDeviceConfiguration()
        tensorflow.config.set_logical_device_configuration(cpu, [part] * count)
    elif backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", count)
