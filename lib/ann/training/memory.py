"""How much memory a run takes, and whether an error says that it does not suffice."""

from __future__ import annotations

import resource
import sys

import keras

GIGABYTE = 1e9
EXHAUSTED = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory", "not enough memory")


def describe_use() -> str:
    """Peak memory of the process, and of the first GPU where there is one, as text."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE:.1f} GB of memory"
    on_device = device_peak()
    return f"{text}, {on_device / GIGABYTE:.1f} GB on the GPU" if on_device else text


def device_peak() -> int:
    """Peak memory of the first GPU, bytes; 0 without one."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        if not tensorflow.config.list_physical_devices("GPU"):
            return 0
        return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]
    if backend == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def is_exhausted(error: Exception) -> bool:
    """Whether a backend, or NumPy, failed because of too little memory; each says it in its own words."""
    named = type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
    return isinstance(error, MemoryError) or named or any(text in str(error) for text in EXHAUSTED)
