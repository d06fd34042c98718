"""What a pickle says, without doing what it says.

A pickle is a program for a stack machine, and Python's own machine runs whatever function it names. This one
knows the few functions that plain checkpoints need, and does not even call those: a tensor becomes a note of
where its numbers lie, an array likewise, and everything else that is named is refused. So nothing is
imported, and no number is read.

For the process that looks into files from elsewhere (`inspection.py`, `checkpoint_contents.py`).
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from ann.weights.inspection import MAX_RANK, Refused, quoted

MAX_KEPT_TEXT = 4096  # characters; longer texts are numbers that protocol 2 wrote as text

STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
MAPPINGS = ("collections.OrderedDict", "collections.Counter", "argparse.Namespace")
SETS = ("builtins.set", "__builtin__.set", "builtins.frozenset")


class Text(str):
    """A text of the pickle. position, size: bytes in the file where it stands as UTF-8 (None: in another
    form).
    """

    position: int | None = None
    size: int = 0
    raw = False  # a byte string of Python 2, one byte for each character


@dataclass(frozen=True)
class Bytes:
    """Bytes of the pickle. as_text: what stands in the file is UTF-8 of the text that has these bytes as
    Latin-1.
    """

    position: int
    size: int
    as_text: bool = False


@dataclass(frozen=True)
class Named:
    """A function, class or constant that the pickle names."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Numbers that lie outside of the pickle. dtype: without the byte order."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class NumberType:
    """NumPy's dtype. name: as `f4`; order: as `<`."""

    name: str
    order: str = "|"


@dataclass
class Array:
    """A NumPy array inside of the pickle; filled by a later BUILD."""

    shape: tuple[int, ...] = ()
    dtype: NumberType | None = None
    fortran: bool = False
    data: Bytes | None = None


@dataclass
class Opaque:
    """A value that nobody asks for: a NumPy scalar, a device."""

    content: list = field(default_factory=list)


MARK = object()


def read_pickle(file: BinaryIO) -> object:
    """The value that the pickle at the file's position describes, of dict, list, tuple, numbers and the
    above.

    Raises:
        Refused: it names something else than data, or is no pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, position in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument, position)
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Refused(
            f"it is no pickle that can be read ({type(error).__name__}: {str(error)[:100]})"
        ) from error
    raise Refused("its pickle has no end")


def is_whole(*values: object) -> bool:
    """Whole numbers of 0 or more."""
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def shape_of(value: object) -> tuple[int, ...]:
    """A tuple of sizes as the pickle has it."""
    if not isinstance(value, tuple | list) or len(value) > MAX_RANK or not is_whole(*value):
        raise Refused(f"an array in it has the shape {quoted(str(value)[:60])}")
    return tuple(value)


class _Machine:
    """The stack machine."""

    def __init__(self):
        self.stack: list = []
        self.memo: dict = {}

    def pop(self):
        value = self.stack.pop()
        if value is MARK:
            raise Refused("its pickle is damaged")
        return value

    def pop_mark(self) -> list:
        """What lies above the last mark."""
        place = len(self.stack) - 1
        while place >= 0 and self.stack[place] is not MARK:
            place -= 1
        if place < 0:
            raise Refused("its pickle is damaged")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def step(self, name: str, argument: object, position: int) -> None:
        if name in TEXTS:
            self.stack.append(text_at(name, argument, position))
        elif name in BYTES:
            self.stack.append(Bytes(position + BYTES[name], len(argument)))
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in NUMBERS:
            self.stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            action = getattr(self, f"do_{name.lower()}", None)
            if action is None:
                raise Refused(f"its pickle does something that no plain checkpoint does ({name})")
            action(argument)

    # containers

    def do_mark(self, _):
        self.stack.append(MARK)

    def do_pop(self, _):
        self.stack.pop()

    def do_pop_mark(self, _):
        self.pop_mark()

    def do_dup(self, _):
        self.stack.append(self.stack[-1])

    def do_empty_list(self, _):
        self.stack.append([])

    def do_empty_set(self, _):
        self.stack.append([])

    def do_empty_dict(self, _):
        self.stack.append({})

    def do_list(self, _):
        self.stack.append(self.pop_mark())

    def do_frozenset(self, _):
        self.stack.append(self.pop_mark())

    def do_tuple(self, _):
        self.stack.append(tuple(self.pop_mark()))

    def do_tuple1(self, _):
        self.stack.append((self.pop(),))

    def do_tuple2(self, _):
        last = self.pop()
        self.stack.append((self.pop(), last))

    def do_tuple3(self, _):
        last, middle = self.pop(), self.pop()
        self.stack.append((self.pop(), middle, last))

    def do_dict(self, _):
        values = self.pop_mark()
        self.stack.append({})
        self.set_items(values)

    def do_append(self, _):
        self.extend([self.pop()])

    def do_appends(self, _):
        self.extend(self.pop_mark())

    do_additems = do_appends

    def extend(self, values):
        if not isinstance(self.stack[-1], list):
            raise Refused("its pickle is damaged")
        self.stack[-1].extend(values)

    def do_setitem(self, _):
        value = self.pop()
        self.set_items([self.pop(), value])

    def do_setitems(self, _):
        self.set_items(self.pop_mark())

    def set_items(self, values):
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise Refused("its pickle is damaged")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[key if isinstance(key, str | int | float | tuple | type(None)) else repr(key)] = value

    # what is named

    def do_global(self, argument):
        module, _, name = argument.partition(" ")
        self.stack.append(named(module, name))

    def do_stack_global(self, _):
        name = self.pop()
        module = self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("its pickle is damaged")
        self.stack.append(named(module, name))

    def do_reduce(self, _):
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise Refused("its pickle is damaged")
        self.stack.append(reduce(function.name, arguments))

    def do_newobj(self, _):
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Named) or function.name not in MAPPINGS or arguments:
            raise Refused(f"its pickle makes an object of {quoted(getattr(function, 'name', str(function)))}")
        self.stack.append({})

    def do_build(self, _):
        state = self.pop()
        build(self.stack[-1], state)

    def do_binpersid(self, _):
        self.stack.append(storage(self.pop()))


TEXTS = {
    "BINUNICODE": 5,
    "SHORT_BINUNICODE": 2,
    "BINUNICODE8": 9,
    "UNICODE": None,
    "STRING": None,
    "BINSTRING": 5,
    "SHORT_BINSTRING": 2,
}
BYTES = {"BINBYTES": 5, "SHORT_BINBYTES": 2, "BINBYTES8": 9, "BYTEARRAY8": 9}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")


def text_at(name: str, argument: str, position: int) -> Text:
    """A text and where it stands. Its letters are kept if it is short enough to be a name."""
    raw = name.endswith("STRING")
    if isinstance(argument, bytes):
        argument = argument.decode("latin-1")
    text = Text(argument if len(argument) <= MAX_KEPT_TEXT else "")
    if TEXTS[name] is not None:
        text.position = position + TEXTS[name]
        text.size = len(argument) if raw else len(argument.encode("utf-8", "surrogatepass"))
    text.raw = raw
    return text


def named(module: str, name: str) -> Named:
    """Something that a plain checkpoint may name."""
    full = f"{module}.{name}"
    if full in REDUCERS or full in MAPPINGS or full in SETS or full in ("numpy.ndarray", "torch.Tensor"):
        return Named(full)
    if module == "torch" and (name in STORAGES or name in TORCH_CONSTANTS):
        return Named(full)
    if module.split(".")[0] in ("torch", "torchvision", "detectron2", "ultralytics", "__main__", "fastai"):
        raise Refused(
            f"it holds an object of the program ({quoted(full)}) and not weights alone, and loading that "
            "would run code. Save the weights alone, in the program it is from: "
            "torch.save(model.state_dict(), FILE)"
        )
    raise Refused(f"its pickle would run code ({quoted(full)})")


FLOATS = ("float16", "float32", "float64", "bfloat16", "half", "float", "double")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "long", "int", "short")
TORCH_CONSTANTS = (*FLOATS, *INTEGERS, "bool", "strided", "contiguous_format", "channels_last")


def storage(identity: object) -> Storage:
    """What the persistent id of a tensor's numbers says."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise Refused("its pickle asks for something outside of the file")
    kind, key, _, count = identity[1:5]
    view = identity[5] if len(identity) > 5 else None
    dtype = STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Named) else None
    if dtype is None or not isinstance(key, str | int) or not is_whole(count) or view is not None:
        raise Refused("it has numbers of an unusual type")
    return Storage(str(key), dtype, count)


def rebuild_tensor(arguments: tuple) -> Tensor:
    held, offset, shape, strides = arguments[:4]
    shape, strides = shape_of(shape), shape_of(strides)
    if not isinstance(held, Storage) or not is_whole(offset) or len(shape) != len(strides):
        raise Refused("a tensor in it is damaged")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= held.count:
        raise Refused("a tensor in it reaches beyond its numbers")
    return Tensor(held, offset, shape, strides)


def rebuild_parameter(arguments: tuple) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise Refused("a parameter in it is damaged")
    return arguments[0]


def encode_text(arguments: tuple) -> Bytes:
    """Bytes that protocol 2 writes as text."""
    text, encoding = arguments
    if (
        not isinstance(text, Text)
        or text.position is None
        or text.raw
        or encoding not in ("latin1", "latin-1")
    ):
        raise Refused("it has bytes in an unusual form")
    return Bytes(text.position, text.size, as_text=True)


def number_type(arguments: tuple) -> NumberType:
    name = arguments[0]
    if not isinstance(name, str) or name not in (
        "f2",
        "f4",
        "f8",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u2",
        "u4",
        "u8",
        "b1",
    ):
        raise Refused("it has an array of something else than numbers")
    return NumberType("u1" if name == "b1" else str(name))


def from_buffer(arguments: tuple) -> Array:
    """An array as protocol 5 writes it."""
    data, dtype, shape, order = arguments
    array = Array()
    build(array, (1, shape, dtype, order == "F", data))
    return array


REDUCERS: dict[str, Callable[[tuple], object]] = {
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch.Size": lambda arguments: tuple(arguments[0]),
    "torch.device": lambda arguments: Opaque(),
    "_codecs.encode": encode_text,
    "numpy.dtype": number_type,
}
for _package in ("numpy.core", "numpy._core"):
    REDUCERS[f"{_package}.multiarray._reconstruct"] = lambda arguments: Array()
    REDUCERS[f"{_package}.multiarray.scalar"] = lambda arguments: Opaque()
    REDUCERS[f"{_package}.numeric._frombuffer"] = from_buffer


def reduce(name: str, arguments: tuple) -> object:
    """What a call that the pickle asks for stands for."""
    if name in MAPPINGS:
        if not arguments:
            return {}
        if isinstance(arguments[0], dict):
            return dict(arguments[0])
        return {key: value for key, value in arguments[0] if isinstance(key, str)}
    if name in SETS:
        return list(arguments[0]) if arguments else []
    if name not in REDUCERS:
        raise Refused(f"its pickle calls {quoted(name)}")
    return REDUCERS[name](arguments)


def build(target: object, state: object) -> None:
    """Complete an object."""
    if isinstance(target, NumberType):
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("it has an array of an unusual type")
        target.order = str(state[1])
    elif isinstance(target, Array):
        _, shape, dtype, fortran, data = state
        target.shape, target.fortran = shape_of(shape), bool(fortran)
        if isinstance(data, Text) and data.raw and data.position is not None:
            data = Bytes(data.position, data.size)
        if not isinstance(dtype, NumberType) or not isinstance(data, Bytes):
            raise Refused("it has an array of something else than numbers")
        target.dtype, target.data = dtype, data
    elif not isinstance(target, dict | Opaque):
        raise Refused("its pickle is damaged")
    elif isinstance(target, dict) and isinstance(state, dict) and not target:
        target.update(
            state
        )  # the names of a Namespace; an OrderedDict has its versions there, which say nothing
