"""Which precision the layers calculate in. Weights, losses and boxes are float32 in any case.

"float32" is exact: NVIDIA's GPUs since Ampere would take products of float32 numbers with ten bits of them
("tf32"), as PyTorch does in convolutions unless it is told not to, and TensorFlow and JAX in all products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

AMPERE = (8, 0)  # the first NVIDIA GPUs with bfloat16
POLICIES = {
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}  # Keras' own names


@contextlib.contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Networks built inside calculate in `name`, one of `POLICIES`.

    "float32" and "tf32" hold for all products of the process from then on.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[name])
    if name in ("float32", "tf32"):
        allow_tf32(name == "tf32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def allow_tf32(allowed: bool) -> None:
    """Whether GPUs may round the factors of float32 products, from now on in this process."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(allowed)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")
    else:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def choose_precision(name: str) -> str:
    """`name`, or for "auto" bfloat16 where the hardware is made for it and float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16() else "float32"


def choose_for_detection(name: str, gpu: bool) -> str:
    """`name`, or for "auto" 16 bits on a GPU, as it has them, and float32 elsewhere."""
    if name != "auto":
        return name
    if not gpu:
        return "float32"
    return "bfloat16" if has_bfloat16() else "float16"


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
