"""A GPU that computes nothing, to see what PyTorch would ask of one: uploads, and waits of the host.

Tensors on it have shapes and types only (PyTorch's fake tensors), so a look at a value fails or is counted.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import keras
import numpy as np
import torch
from keras.src.backend.torch import core
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "fakegpu:0"
_setup_privateuseone_for_python_backend("fakegpu")
# nothing is computed by these
VIEWS = (
    "device view expand permute transpose t slice select unsqueeze squeeze as_strided detach alias unbind "
    "split split_with_sizes reshape _unsafe_view lift_fresh"
)
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}


class Asked(TorchDispatchMode):
    """What the device was asked for. launches, waits: how often each operation; uploads: those of numbers."""

    def __init__(self):
        super().__init__()
        self.launches, self.waits, self.uploads = Counter(), Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.__name__.split(".")[0]
        if name in WAITS:
            self.waits[name] += 1
        elif name not in VIEWS.split():
            self.launches[name] += 1
        places = {one.device.type for one in (result, *args) if isinstance(one, torch.Tensor)}
        if name in ("_to_copy", "copy_") and len(places) > 1:
            self.uploads[name] += 1
        return result


class _Uploads(TorchFunctionMode):
    """Numbers that become tensors of the device, which fake tensors don't cover."""

    def __init__(self, asked):
        super().__init__()
        self._asked = asked

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.as_tensor or isinstance(args[0], torch.Tensor):
            return function(*args, **kwargs)
        self._asked.uploads["as_tensor"] += 1
        values = torch.as_tensor(np.asarray(args[0]))
        return torch.empty(values.shape, dtype=kwargs.get("dtype") or values.dtype, device=DEVICE)


class FakeGPU:
    """Inside of `use`, Keras computes on the device."""

    def __init__(self):
        self._mode = FakeTensorMode()

    @contextlib.contextmanager
    def use(self):
        asked, before = Asked(), core.DEFAULT_DEVICE
        core.DEFAULT_DEVICE = DEVICE
        try:
            with self._mode, _Uploads(asked), asked:
                yield asked
        finally:
            core.DEFAULT_DEVICE = before

    def empty(self, like) -> torch.Tensor:
        """A tensor there, of an array's or tensor's shape and type."""
        like = torch.as_tensor(like)
        with self._mode:
            return torch.empty(like.shape, dtype=like.dtype, device=DEVICE)

    def move(self, variables: list[keras.Variable]) -> None:
        """Have variables there instead, for good."""
        for variable in variables:
            value = variable._value
            moved = self.empty(value.detach())
            with self._mode:
                variable._value = (
                    torch.nn.Parameter(moved, requires_grad=value.requires_grad)
                    if value.is_floating_point()
                    else moved
                )
