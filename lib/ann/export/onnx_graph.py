"""A graph of ONNX operations, and its values as arrays that can be calculated with.

The operations are those of the standard (opset 18), which onnxruntime, OpenVINO and others run. Besides what
layers need (see `inference.graph_layers`) there is what lies between them: `Values` add, compare and index as
arrays do, and `operation` adds any other. Shapes may depend on the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 9  # of onnxruntime 1.15 and later; the file has nothing that needs a newer one
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}
Shape = Sequence[int | str]


@dataclass(frozen=True, eq=False)
class Values:
    """An output of an operation. Numbers and arrays beside it become constants of float32 or int64."""

    graph: OnnxGraph
    name: str

    def __add__(self, other):
        return self.graph.operation("Add", self, other)

    def __sub__(self, other):
        return self.graph.operation("Sub", self, other)

    def __mul__(self, other):
        return self.graph.operation("Mul", self, other)

    def __truediv__(self, other):
        return self.graph.operation("Div", self, other)

    def __ge__(self, other):
        return self.graph.operation("GreaterOrEqual", self, other)

    def __gt__(self, other):
        return self.graph.operation("Greater", self, other)

    def __and__(self, other):
        return self.graph.operation("And", self, other)

    def cast(self, dtype: str):
        """dtype: float32, float64 or int64."""
        return self.graph.operation("Cast", self, to=TYPES[dtype])

    def take(self, indices, axis: int = 0):
        """Rows (along the axis) by their indices, int64."""
        return self.graph.operation("Gather", self, indices, axis=axis)

    def reshape(self, *shape):
        """As NumPy's."""
        return self.graph.operation("Reshape", self, np.int64(shape))

    def columns(self, count: int):
        """The last axis in `count` pieces of length 1, each of which keeps it."""
        return self.graph.operation("Split", self, outputs=count, axis=-1, num_outputs=count)

    def length(self):
        """Of the first axis, (1,) int64."""
        return self.graph.operation("Shape", self, start=0, end=1)


class OnnxGraph:
    """Collects operations; `model` makes a file of them."""

    def __init__(self, name: str):
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    # what goes in and comes out

    def input(self, name: str, dtype: str, shape: Shape) -> Values:
        """An input; texts are names of lengths that are not fixed."""
        self._inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], list(shape)))
        return Values(self, name)

    def output(self, values: Values, name: str, dtype: str, shape: Shape) -> None:
        """Give values a name as an output."""
        self._nodes.append(helper.make_node("Identity", [values.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TYPES[dtype], list(shape)))

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The finished model, checked."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="i.ann.maskrcnn",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model

    # operations

    def operation(self, kind: str, *inputs, outputs: int = 1, **attributes):
        """Add an operation of the standard; its output or, if there are several, a list of them."""
        number = len(self._nodes)
        names = [f"{kind}_{number}" + (f"_{index}" if outputs > 1 else "") for index in range(outputs)]
        values = [one if isinstance(one, Values) else self.constant(one) for one in inputs]
        self._nodes.append(helper.make_node(kind, [one.name for one in values], names, **attributes))
        found = [Values(self, name) for name in names]
        return found if outputs > 1 else found[0]

    def constant(self, values, dtype: str | None = None) -> Values:
        """An array, by default of float32 or, if these are whole numbers, int64."""
        values = np.asarray(values)
        values = np.asarray(values, dtype or ("int64" if values.dtype.kind in "iu" else "float32"))
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return Values(self, name)

    def range(self, length: Values) -> Values:
        """0, 1, 2, ... as many as `length` (1,) says, int64."""
        end = self.operation("Squeeze", length, np.int64([0]))
        return self.operation("Range", np.int64(0), end, np.int64(1))

    def zeros(self, length: Values) -> Values:
        """As many as `length` (1,) says, int64."""
        nothing = numpy_helper.from_array(np.zeros(1, np.int64))
        return self.operation("ConstantOfShape", length, value=nothing)

    def part(self, x: Values, start: int, end: int, axis: int = 0) -> Values:
        """Rows (along the axis) from `start` to before `end`."""
        return self.operation("Slice", x, *(np.int64([one]) for one in (start, end, axis)))

    def where(self, condition: Values, chosen, other) -> Values:
        return self.operation("Where", condition, chosen, other)

    def true_places(self, condition: Values) -> Values:
        """Indices at which a row of truth values is true, ascending, int64."""
        return self.operation("NonZero", condition).reshape(-1)

    # what layers need

    def transpose(self, x, order):
        return self.operation("Transpose", x, perm=list(order))

    def pad(self, x, before, after):
        return self.operation("Pad", x, np.int64([*before, *after]))

    def convolution(self, x, kernel, *, strides, dilations, same, group=1):
        return self.operation(
            "Conv",
            x,
            kernel,
            group=group,
            strides=list(strides),
            dilations=list(dilations),
            auto_pad="SAME_UPPER" if same else "VALID",
        )

    def depthwise_convolution(self, x, kernel, **options):
        return self.convolution(x, kernel, group=len(kernel), **options)

    def transposed_convolution(self, x, kernel, *, strides):
        return self.operation("ConvTranspose", x, kernel, strides=list(strides))

    def max_pool(self, x, *, size, strides, same):
        return self.operation(
            "MaxPool",
            x,
            kernel_shape=list(size),
            strides=list(strides),
            auto_pad="SAME_UPPER" if same else "VALID",
        )

    def repeat(self, x, factors):
        empty = self.operation("Constant", value=numpy_helper.from_array(np.zeros(0, np.float32)))
        return self.operation(
            "Resize",
            x,
            empty,
            np.float32([1, 1, *factors]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def add(self, x, y):
        return x + y

    def multiply(self, x, y):
        return x * y

    def matmul(self, x, matrix):
        return self.operation("MatMul", x, matrix)

    def reshape(self, x, shape):
        return x.reshape(0, *shape)

    def concatenate(self, values, axis):
        return self.operation("Concat", *values, axis=axis)

    def relu(self, x):
        return self.operation("Relu", x)

    def relu6(self, x):
        return self.operation("Clip", x, np.float32(0), np.float32(6))

    def sigmoid(self, x):
        return self.operation("Sigmoid", x)
