"""Which precision the layers calculate in. Weights, losses and boxes are float32 in any case."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

AMPERE = (8, 0)  # the first NVIDIA GPUs with bfloat16


@contextlib.contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Networks built inside calculate in `name`, "float32" or "bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def choose_precision(name: str) -> str:
    """`name`, or for "auto" bfloat16 where the hardware is made for it and float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether the backend's device multiplies matrices in bfloat16 itself, instead of emulating it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        devices = tensorflow.config.list_physical_devices("GPU")
        if devices:
            details = tensorflow.config.experimental.get_device_details(devices[0])
            return details.get("compute_capability", (0, 0)) >= AMPERE
    elif backend == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "gpu":
            return tuple(map(int, device.compute_capability.split("."))) >= AMPERE
        if device.platform == "tpu":
            return True
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_capability() >= AMPERE
    return cpu_has_bfloat16()


def cpu_has_bfloat16(description: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has bfloat16 matrix or vector instructions; False where that is not known."""
    try:
        lines = description.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return "amx_bf16" in flags or "avx512_bf16" in flags
