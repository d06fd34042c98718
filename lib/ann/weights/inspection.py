"""Look into an HDF5 file from elsewhere, in a process of its own.

A model file may come from anywhere, and the HDF5 library was not made for files that mean harm: a few
wrong bytes can crash it, keep it busy for ever or make it ask for all memory. So no other process of this
package parses such a file. This one runs as `python inspection.py FILE` under limits on memory and time,
and prints a table of contents as JSON: for each layer the name, shape, type and *position in the file* of
its arrays. Whoever wants the numbers then reads plain bytes from there (`model_file.py`).

What is let through is what the format needs and no more: groups joined by hard links, string attributes,
and integer or float datasets that lie in one piece in this file. No filter runs, no other file is opened,
no pickled, compound or variable-length data is touched, and Keras' `model_config` is never read.

Only the standard library, numpy and h5py are imported, nothing of this package: it also runs as a script.
"""

from __future__ import annotations

import json
import math
import sys
import time

import h5py
import numpy as np

MEMORY_LIMIT = 1 << 30  # bytes; h5py itself takes 0.1 GB, the table of a real file a few MB
CPU_LIMIT = 4  # seconds of work on the file; a real one takes 0.2
MAX_LAYERS = 10_000
MAX_ARRAYS = 1_000  # of one layer; the largest real one has six
MAX_STATE_ARRAYS = 100_000
MAX_RANK = 6
MAX_DEPTH = 6  # of groups below a layer, when its attribute weight_names is missing
MAX_TEXT = 1 << 24  # bytes of one string attribute

DESCRIPTION = "maskrcnn"
STATE_GROUP = "training_state"

# Order of a layer's arrays when no attribute gives it: that of Keras, whose names they carry.
SUBLAYER_ORDER = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
KIND_ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


class Refused(Exception):
    """Something in the file that is not read; the message says what."""


def quoted(name: str) -> str:
    """`name` safe to print and of bounded length."""
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."


def parts_of(name: str) -> list[str]:
    """The links of an HDF5 path below its group."""
    return [part for part in name.split("/") if part]


def encoded(name: str) -> bytes:
    """An HDF5 name as its bytes; names that are no UTF-8 survive."""
    return name.encode("utf-8", "surrogateescape")


def decoded(name: bytes) -> str:
    """The inverse of `encoded`."""
    return name.decode("utf-8", "surrogateescape")


def child(group: h5py.h5g.GroupID, name: str, where: str) -> h5py.h5g.GroupID | h5py.h5d.DatasetID:
    """The group or dataset that the hard link `name` of `group` leads to."""
    link = encoded(name)
    if name == "." or b"\0" in link or not group.links.exists(link):
        raise Refused(f"{where} lists {quoted(name)}, which is not in the file")
    if group.links.get_info(link).type != h5py.h5l.TYPE_HARD:
        raise Refused(f"{where} has {quoted(name)} as a link to another place or file")
    found = h5py.h5o.open(group, link)
    if not isinstance(found, h5py.h5g.GroupID | h5py.h5d.DatasetID):
        raise Refused(f"{where} has {quoted(name)}, which is neither a group nor a dataset")
    return found


def subgroup(group: h5py.h5g.GroupID, name: str, where: str) -> h5py.h5g.GroupID:
    """The group `name` below `group`; a layer's name may hold slashes."""
    found = group
    for part in parts_of(name) or [name]:
        found = child(found, part, where)
        if not isinstance(found, h5py.h5g.GroupID):
            raise Refused(f"{quoted(name)} should be a group and is a dataset")
    return found


def link_names(group: h5py.h5g.GroupID, limit: int, where: str) -> list[str]:
    """Names of the links of a group, sorted; at most `limit`."""
    if group.get_num_objs() > limit:
        raise Refused(f"{where} has {group.get_num_objs()} entries, more than {limit}")
    return sorted(decoded(name) for name in group)


def strings(group: h5py.h5g.GroupID, name: str, limit: int, where: str) -> list[str] | None:
    """A string attribute as a list of at most `limit`, or None where there is none."""
    if not h5py.h5a.exists(group, name.encode()):
        return None
    attribute = h5py.h5a.open(group, name.encode())
    kind, shape = attribute.get_type(), attribute.shape
    if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return []
    count = int(np.prod(shape, dtype=object))
    if len(shape) > 1 or count > limit:
        raise Refused(f"the attribute {name} of {where} has the shape {shape}")
    if kind.get_class() == h5py.h5t.FLOAT and count == 0:
        return []  # how Keras writes the empty list of a layer without weights
    if kind.get_class() != h5py.h5t.STRING:
        raise Refused(f"the attribute {name} of {where} is not text")
    if not kind.is_variable_str() and count * kind.get_size() > MAX_TEXT:
        raise Refused(f"the attribute {name} of {where} is {count * kind.get_size()} bytes long")
    values = np.empty(shape, dtype=kind.dtype)
    attribute.read(values)
    texts = [decoded(value) if isinstance(value, bytes) else str(value) for value in values.ravel().tolist()]
    if sum(map(len, texts)) > MAX_TEXT:
        raise Refused(f"the attribute {name} of {where} is longer than {MAX_TEXT} bytes")
    return texts


def chunked_strings(group: h5py.h5g.GroupID, name: str, limit: int, where: str) -> list[str] | None:
    """A list of strings that may be split into `name0`, `name1`, ..., as Keras does beyond 64 kB."""
    whole = strings(group, name, limit, where)
    if whole is not None:
        return whole
    texts: list[str] = []
    for number in range(MAX_LAYERS):
        part = strings(group, f"{name}{number}", limit, where)
        if part is None:
            return texts if number else None
        texts += part
        if len(texts) > limit:
            break
    raise Refused(f"the attribute {name} of {where} has more than {limit} parts")


def array_entry(dataset: h5py.h5d.DatasetID, name: str, where: str) -> list:
    """[name, shape, numpy type, position in the file] of a plain numeric dataset.

    Nothing of its content is read. Refused: anything but integers and IEEE floats, and any storage but
    one piece in this file (compressed, chunked, virtual, external).
    """
    label = f"{quoted(name)} of {where}"
    kind = dataset.get_type()
    if kind.get_class() not in (h5py.h5t.FLOAT, h5py.h5t.INTEGER):
        raise Refused(f"the dataset {label} holds no numbers")
    dtype = kind.dtype
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or not h5py.h5t.py_create(dtype).equal(kind):
        raise Refused(f"the dataset {label} holds numbers of an unusual type")
    space = dataset.get_space()
    if space.get_simple_extent_type() not in (h5py.h5s.SIMPLE, h5py.h5s.SCALAR):
        raise Refused(f"the dataset {label} is empty")
    shape = space.get_simple_extent_dims()
    if len(shape) > MAX_RANK:
        raise Refused(f"the dataset {label} has {len(shape)} dimensions")
    storage = dataset.get_create_plist()
    if storage.get_layout() != h5py.h5d.CONTIGUOUS:
        raise Refused(
            f"the dataset {label} is compressed, cut into chunks, or stored elsewhere"
            " (`h5repack -l CONTI -f NONE OLD NEW` writes it in one piece)"
        )
    if storage.get_external_count():
        raise Refused(f"the dataset {label} lies in another file")
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize  # Python integers: can't overflow
    if size and (dataset.get_offset() is None or dataset.get_storage_size() != size):
        raise Refused(f"the dataset {label} declares {size} bytes and has {dataset.get_storage_size()}")
    return [name, list(shape), dtype.str, dataset.get_offset() or 0]


def datasets_below(group: h5py.h5g.GroupID, prefix: str, depth: int, where: str) -> list[str]:
    """Paths of all datasets below a group, in the order of the names."""
    if depth > MAX_DEPTH:
        raise Refused(f"{where} nests groups deeper than {MAX_DEPTH}")
    found: list[str] = []
    for name in link_names(group, MAX_ARRAYS, where):
        below = child(group, name, where)
        if isinstance(below, h5py.h5g.GroupID):
            found += datasets_below(below, f"{prefix}{name}/", depth + 1, where)
        else:
            found.append(prefix + name)
        if len(found) > MAX_ARRAYS:
            raise Refused(f"{where} has more than {MAX_ARRAYS} datasets")
    return found


def keras_order(name: str, where: str) -> tuple[int, int]:
    """Sorting key that puts a layer's datasets into the order in which Keras lists them."""
    *groups, last = parts_of(name)
    kind = last.split(":")[0]
    if kind not in KIND_ORDER:
        raise Refused(f"{where} has no attribute weight_names, and what {quoted(name)} means is not known")
    sublayer = [SUBLAYER_ORDER.index(group) for group in groups if group in SUBLAYER_ORDER]
    return (sublayer[0] if sublayer else 0, KIND_ORDER.index(kind))


def layer_arrays(group: h5py.h5g.GroupID, where: str) -> list[list]:
    """Entries of a layer's arrays in their order."""
    names = chunked_strings(group, "weight_names", MAX_ARRAYS, where)
    if names is None:
        names = datasets_below(group, "", 0, where)
        keys = [keras_order(name, where) for name in names] if len(names) > 1 else [0] * len(names)
        if len(set(keys)) != len(keys):
            raise Refused(
                f"{where} has no attribute weight_names, and the order of its datasets is not known"
            )
        names = [name for _, name in sorted(zip(keys, names, strict=True))]
    entries = []
    for name in names:
        found = group
        for part in parts_of(name) or [name]:
            if not isinstance(found, h5py.h5g.GroupID):
                raise Refused(f"{where} lists {quoted(name)}, which is not in the file")
            found = child(found, part, where)
        if not isinstance(found, h5py.h5d.DatasetID):
            raise Refused(f"{where} lists {quoted(name)}, which is a group")
        entries.append(array_entry(found, name, where))
    return entries


def state_arrays(root: h5py.h5g.GroupID) -> list[list]:
    """Entries of the training state: datasets 0, 1, ... whose names stand in the attribute `names`."""
    if not root.links.exists(STATE_GROUP.encode()):
        return []
    group = subgroup(root, STATE_GROUP, "the file")
    names = chunked_strings(group, "names", MAX_STATE_ARRAYS, STATE_GROUP)
    if names is None:
        raise Refused(f"the group {STATE_GROUP} has no attribute names")
    entries = []
    for number, name in enumerate(names):
        dataset = child(group, str(number), STATE_GROUP)
        if not isinstance(dataset, h5py.h5d.DatasetID):
            raise Refused(f"{STATE_GROUP}/{number} is a group")
        entries.append(array_entry(dataset, name, STATE_GROUP))
    return entries


def contents(path: str) -> dict:
    """Table of contents of a model file, ready for JSON.

    Returns:
        `layers`: list of [layer name, list of array entries] in the file's order; `state`: array entries;
        `description`: the text of our attribute or None; `keras_version`.

    Raises:
        Refused, OSError, RuntimeError, ...: whatever h5py raises on a broken file.
    """
    with h5py.File(path, "r") as file:
        root = file["/"].id
        weights = root
        names = chunked_strings(root, "layer_names", MAX_LAYERS, "the file")
        if names is None and root.links.exists(b"model_weights"):  # a whole Keras model, not only its weights
            weights = subgroup(root, "model_weights", "the file")
            names = chunked_strings(weights, "layer_names", MAX_LAYERS, "model_weights")
        if names is None:
            found = [name for name in link_names(weights, MAX_LAYERS, "the file") if name != STATE_GROUP]
            names = [name for name in found if isinstance(child(weights, name, "the file"), h5py.h5g.GroupID)]
        if len(set(names)) != len(names):
            raise Refused("the attribute layer_names lists a layer twice")
        layers = [
            [name, layer_arrays(subgroup(weights, name, "layer_names"), quoted(name))] for name in names
        ]
        description = chunked_strings(root, DESCRIPTION, MAX_LAYERS, "the file")
        return {
            "layers": layers,
            "state": state_arrays(root),
            "description": None if description is None else "".join(description),
        }


def limit_this_process(seconds: int = CPU_LIMIT) -> None:
    """Take from this process the right to much memory, much time and core files (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    for what, value in (
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_CPU, seconds + math.ceil(time.process_time())),  # Python's start does not count
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main(path: str) -> int:
    """Print the table or {"error": ...} as JSON."""
    limit_this_process()
    try:
        result = contents(path)
    except Refused as error:
        result = {"error": str(error)}
    except Exception as error:  # h5py passes HDF5's errors on as almost any class
        result = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
