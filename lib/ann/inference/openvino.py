"""Networks run by OpenVINO, which is faster on CPUs than Keras' backends; an optional extra.

The layers are translated one by one (`graph_layers`), so no backend has to trace the network: it is the
same for all backends, takes a second instead of many, and writes nothing to disk.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from ann.devices.available import gpu_in_use


def openvino_version() -> str | None:
    """Version of the OpenVINO that is installed, None without one."""
    try:
        import openvino
    except ImportError:
        return None
    return openvino.__version__.split("-")[0]


def choose_runtime(*, keras_only: bool = False, precision: str | None = None) -> tuple[bool, str]:
    """Whether OpenVINO is to run a network, and what to call what runs it.

    It does where it is installed and Keras has no GPU, unless `keras_only`. precision: that it computes in;
    None: its own choice.
    """
    backend = keras.backend.backend()
    gpu, version = gpu_in_use(), openvino_version()
    if keras_only or gpu or version is None:
        return False, f"Keras on {backend}, {'GPU' if gpu else 'CPU'}"
    return True, f"OpenVINO {version}, {precision or default_precision()} (and Keras on {backend})"


def default_precision() -> str:
    """What OpenVINO computes in on this processor if nothing is asked for: float32, bfloat16 or float16."""
    import openvino
    import openvino.opset13 as opset

    # decided when a model is compiled: any will do
    parameter = opset.parameter([1], np.float32)
    model = openvino.Model([opset.result(opset.relu(parameter))], [parameter], "none")
    compiled = openvino.Core().compile_model(model, "CPU")
    kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(kind, kind)


def part_compiler(*, threads: int = 0, precision: str | None = None) -> Callable:
    """(functional model, shape of its input) -> openvino.CompiledModel on the CPU.

    Args:
        threads: how many to use; 0 uses all cores.
        precision: "f32", "bf16" or "f16"; by default OpenVINO chooses: bfloat16 where the processor
            computes in it, float32 elsewhere.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    from ann.inference.openvino_graph import openvino_model

    settings = {"PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    core = openvino.Core()

    def compile_part(model: keras.Model, shape: tuple[int, ...]):
        return core.compile_model(openvino_model(model, shape), "CPU", settings)

    return compile_part


class Part:
    """A part of the network as a callable of arrays, compiled once for each shape.

    Raises:
        ValueError: the model has a layer that can't be translated.
    """

    def __init__(self, model: keras.Model, compile_part: Callable):
        from ann.inference.graph_layers import check_layers

        check_layers(model)
        self._model = model
        self._compile = compile_part
        self._requests = {}  # shape -> openvino.InferRequest

    def __call__(self, inputs):
        inputs = np.ascontiguousarray(ops.convert_to_numpy(inputs), np.float32)
        if inputs.shape not in self._requests:
            self._requests[inputs.shape] = self._compile(self._model, inputs.shape).create_infer_request()
        request = self._requests[inputs.shape]
        request.infer([inputs], share_inputs=True, share_outputs=True)
        outputs = [tensor.data for tensor in request.output_tensors]
        return outputs if len(outputs) > 1 else outputs[0]
