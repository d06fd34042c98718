"""A network as an ONNX file that describes itself, with a STAC item beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ann.config import ModelConfig
from ann.errors import ModelFileError
from ann.packages import install_hint, missing_packages

if TYPE_CHECKING:
    from ann.export.onnx_graph import OnnxGraph, Shape, Values

SUFFIX = ".onnx"


@dataclass(frozen=True, kw_only=True)
class Array:
    """An input or output: its type, lengths (-1: not fixed) and what its axes are called.

    classes: it holds class ids.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    description: str
    classes: bool = False

    @property
    def lengths(self) -> Shape:
        """The shape for ONNX, which names lengths that are not fixed; equal names are equal lengths."""
        return [axis if length < 0 else length for length, axis in zip(self.shape, self.axes, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A network to write. title: its kind, for people; task: as STAC's MLM extension calls it.

    settings: numbers by name that the graph was made with, besides those of the description.
    """

    config: ModelConfig
    graph: OnnxGraph
    title: str
    task: str
    image: Array
    outputs: tuple[Array, ...]
    parameters: int
    settings: Mapping[str, object] = field(default_factory=dict)


def add_outputs(graph: OnnxGraph, arrays: tuple[Array, ...], values: list[Values]) -> None:
    """Name values as the outputs."""
    for array, value in zip(arrays, values, strict=True):
        graph.output(value, array.name, array.dtype, array.lengths)


def check_export(path: str | Path, *, overwrite: bool) -> None:
    """See that a file can be written, before the work.

    Raises:
        ModelFileError: the package onnx is missing, another ending, no directory, or one of both files is
            there and may not be overwritten.
    """
    path = Path(path)
    if missing := missing_packages(["onnx"], backend=False):
        raise ModelFileError(f"Exporting needs a package more. {install_hint(missing)}")
    if path.suffix.lower() != SUFFIX:
        raise ModelFileError(f"Expected the name of a file that ends with {SUFFIX}, received {path}")
    if not path.parent.is_dir():
        raise ModelFileError(f"The directory of {path} does not exist. Create it first")
    there = [one for one in (path, item_path(path)) if one.exists()]
    if there and not overwrite:
        raise ModelFileError(f"{there[0]} exists already. Choose another name, or use --overwrite")


def item_path(path: Path) -> Path:
    """The STAC item of a model."""
    return path.with_suffix(".json")


def save_export(path: str | Path, exported: Exported) -> tuple[Path, Path]:
    """Write the ONNX file and the STAC item beside it; each replaces one of that name as a whole.

    Raises:
        ModelFileError: they can't be written.
    """
    from ann.export.stac import stac_item

    path = Path(path)
    model = exported.graph.model(describe(exported)).SerializeToString()
    item = json.dumps(stac_item(exported, path.name), indent=2, ensure_ascii=False).encode()
    for target, content in ((path, model), (item_path(path), item)):
        partial = target.with_name(f".{target.name}.part")
        try:
            partial.write_bytes(content)
            os.replace(partial, target)
        except OSError as error:
            raise ModelFileError(f"{target} can't be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return path, item_path(path)


def describe(exported: Exported) -> dict[str, str]:
    """The metadata of the ONNX file; each value is JSON. `description`: that of the model's `.h5` file."""
    config = exported.config
    values = {
        "network": config.network,
        "classes": config.classes,
        "bands": config.bands,
        "band_labels": config.band_labels,
        "scaling": {
            "mean": config.band_mean,
            "scale": config.band_scale,
            "done_by": "the graph, which takes pixel values as they are",
        },
        "pixel_size": config.pixel_size,
        "tile_size": exported.image.shape[2:],
        **exported.settings,
    }
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return texts | {"description": config.to_json()}
