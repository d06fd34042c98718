"""Arrays to the GPU on a stream of their own, beside what is computed."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch

_of_thread = threading.local()


def upload_arrays(arrays: Mapping, device: torch.device) -> dict[str, torch.Tensor]:
    """{name: array} -> tensors of a GPU, ready for what its default stream does next.

    The copy engine takes them from pinned memory. This thread waits for it, others don't.
    """
    with torch.cuda.device(device):
        if not hasattr(_of_thread, "stream"):
            _of_thread.stream = torch.cuda.Stream()
        with torch.cuda.stream(_of_thread.stream):
            tensors = {
                name: torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
                for name, array in arrays.items()
            }
        _of_thread.stream.synchronize()
        for tensor in tensors.values():  # not to be given away while the default stream reads it
            tensor.record_stream(torch.cuda.default_stream())
    return tensors
