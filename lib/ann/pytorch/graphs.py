"""A function of tensors as one CUDA graph: its kernels are recorded once and started together from then on.

A step of training or detection here is thousands of small kernels, and starting them one by one from Python
takes many times as long as the GPU needs for them. What is recorded must have fixed shapes and may not look
at a value on the host, which is how everything in this library's networks is written.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import keras
import numpy as np
import torch
from torch.overrides import TorchFunctionMode

WARM_UP = 2  # calls that run kernel by kernel before one is recorded: libraries choose their kernels in them
LARGEST_CONSTANT = 64  # numbers


class Constants(TorchFunctionMode):
    """Inside of the context, numbers that Keras turns into tensors are sent to the device once and kept.

    Keras does it for each operand of each operation that is a number, and each time the host waits.
    """

    def __init__(self):
        super().__init__()
        self._kept = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = _constant_key(args[0]) if function is torch.as_tensor and args else None
        if key is None:
            return function(*args, **kwargs)
        key = (key, str(kwargs.get("dtype")), str(kwargs.get("device")))
        if key not in self._kept:
            self._kept[key] = function(*args, **kwargs).clone()  # else an array could change under it
        return self._kept[key]


def keras_device() -> torch.device:
    """The device that Keras computes on in this thread."""
    return keras.ops.zeros(0).device


def _constant_key(value):
    """What tells constants apart; None for what is none."""
    if isinstance(value, bool | int | float):
        return type(value), value
    if isinstance(value, list | tuple) and not any(isinstance(one, torch.Tensor) for one in value):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.size <= LARGEST_CONSTANT and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    return None


class Recorded:
    """`function` of tensors (in any structure), whose results are overwritten by the next call.

    On a CPU it is just called. On a GPU it is recorded for each set of shapes and each thread after a few
    calls. If that can't be done, for it waits for the device or the memory does not suffice, a warning says
    so and it goes on kernel by kernel.
    """

    def __init__(self, function: Callable, *, record: bool = True):
        self._function, self._record = function, record
        self._constants = Constants()
        self._graphs = {}

    def __call__(self, *inputs):
        device = keras_device()
        if device.type != "cuda" or not self._record:
            return self._run(*keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))
        tensors = [torch.as_tensor(one) for one in keras.tree.flatten(inputs)]
        # cuDNN's choices belong to a thread
        key = (threading.get_ident(), *((one.shape, one.dtype) for one in tensors))
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._run, device)
        return self._graphs[key](inputs, tensors)

    @property
    def recorded(self) -> bool:
        """Whether the calls so far have led to a recording."""
        return any(graph.recorded for graph in self._graphs.values())

    def _run(self, *inputs):
        with self._constants:
            return self._function(*inputs)


class _Graph:
    """One recording, or the way there."""

    def __init__(self, function, device):
        torch.backends.cudnn.benchmark = True  # shapes are fixed, so the search for the fastest way pays
        self._function, self._device = function, device
        self._calls, self._failed = 0, False
        self._graph = self._outputs = None
        self._inputs = []

    def __call__(self, inputs, tensors):
        with torch.cuda.device(self._device):
            if self._calls == 0:
                self._stream = torch.cuda.Stream()
            self._calls += 1
            tensors = [self._place(index, one) for index, one in enumerate(tensors)]
            if self._calls > WARM_UP and not self._failed and self._graph is None:
                self._record(_packed(inputs, tensors))
            if self._graph is None:
                return self._run_alone(_packed(inputs, tensors))
            self._graph.replay()
            return self._outputs

    @property
    def recorded(self) -> bool:
        """Whether there is a recording."""
        return self._graph is not None

    def _place(self, index, tensor):
        """An input where the recording reads it. What another recording leaves is read where it is."""
        if len(self._inputs) <= index:
            self._inputs.append(tensor.to(self._device, copy=True))
        place = self._inputs[index]
        if place is tensor:
            return place
        if getattr(tensor, "recorded", False) and self._calls > WARM_UP:
            self._inputs[index], self._graph = tensor, None
            return tensor
        place.copy_(tensor, non_blocking=True)
        return place

    def _run_alone(self, inputs):
        if self._failed:
            return self._function(*inputs)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = self._function(*inputs)
        torch.cuda.synchronize()
        return outputs

    def _record(self, inputs):
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._outputs = self._function(*inputs)
        except Exception as error:  # whatever a driver or an operation has against it
            torch.cuda.synchronize()
            self._failed = True
            warnings.warn(
                f"The GPU's work could not be recorded as one graph, so it is slower: {error}", stacklevel=2
            )
            return
        self._graph = graph
        for output in keras.tree.flatten(self._outputs):
            output.recorded = True


def _packed(structure, tensors):
    return keras.tree.pack_sequence_as(structure, tensors)
