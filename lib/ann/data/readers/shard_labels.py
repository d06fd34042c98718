"""The kinds of labels that shards hold: how each is stored, and what is known of a tile before it is read.

Another kind needs an entry in `KINDS`, under the name that `Dataset.labels` has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rasterio.io import MemoryFile

from ann.data.dataset import CELL_LABELS, IMAGE_LABELS, OBJECT_LABELS, count_class_ids
from ann.data.example import Example
from ann.data.outlines.masks import CroppedMask
from ann.data.outlines.rle import runs_from_mask
from ann.data.outlines.shapes import RunMask
from ann.data.pixels.encoding import encode_image
from ann.data.pixels.rasters import read_pixels
from ann.data.pixels.windows import Window
from ann.data.readers.image_classes import ClassReader
from ann.data.readers.labelled_cells import CellReader, find_classes
from ann.data.readers.labelled_image import ImageReader, PixelSource


class Tile(Protocol):
    """A tile that is read.

    boxes, class_ids: as `LabelKind.known` gave them, with the reader's class ids.
    new_ids: (stored classes + 1,) int, the reader's class id of each stored one.
    """

    name: str
    height: int
    width: int
    boxes: np.ndarray
    class_ids: np.ndarray
    new_ids: np.ndarray


@dataclass(frozen=True, kw_only=True)
class KnownLabels:
    """What is known of the labels of a tile before it is read.

    class_ids: (N,) int, what is of which class; boxes: N times (y1, x1, y2, x2), pixels, where it is.
    counts: (classes,) int, how much is labelled with each class.
    """

    class_ids: Sequence[int]
    boxes: Sequence[Sequence[int]]
    counts: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class LabelStore:
    """How labels of a kind are stored.

    column: the name of their column; type: its type, a function that imports pyarrow.
    store: the labels of an example as a value of the column. known: for so many classes.
    read: a window of a tile (None: all), from the value and the tile's pixels.
    """

    column: str
    type: Callable[[], object]
    store: Callable[[Example], object]
    known: Callable[[Example, int], KnownLabels]
    read: Callable[[Tile, object, PixelSource, Window | None], Example]


def _object_type():
    import pyarrow as arrow

    return arrow.list_(
        arrow.struct(
            {
                "class_id": arrow.int32(),
                "box": arrow.list_(arrow.int32(), 4),  # y1, x1, y2, x2 of what the tile shows
                "whole": arrow.bool_(),  # the tile shows all of it
                "area": arrow.float64(),  # pixels, also of what lies outside of the tile
                "runs": arrow.list_(arrow.uint32()),
            }
        )
    )


def _store_objects(example: Example) -> list[dict]:
    visible = np.ones(len(example.masks)) if example.visible is None else example.visible
    shape = example.image.shape[:2]
    return [
        _store_object(mask, int(class_id), float(share), shape)
        for mask, class_id, share in zip(example.masks, example.class_ids, visible, strict=True)
    ]


def _store_object(mask: CroppedMask, class_id: int, visible: float, shape: tuple[int, int]) -> dict:
    return {
        "class_id": class_id,
        "box": mask.box,
        "whole": visible >= 1,
        "area": mask.area / visible,
        "runs": runs_from_mask(mask, *shape),
    }


def _known_objects(example: Example, class_count: int) -> KnownLabels:
    return KnownLabels(
        class_ids=example.class_ids.tolist(),
        boxes=[mask.box for mask in example.masks],
        counts=count_class_ids(example.class_ids, class_count),
    )


def _read_objects(tile: Tile, stored: list[dict], pixels: PixelSource, window: Window | None) -> Example:
    reader = ImageReader(
        pixels=pixels,
        name=tile.name,
        height=tile.height,
        width=tile.width,
        shapes=tuple(_shape(instance, tile.height, tile.width) for instance in stored),
        boxes=tile.boxes,
        class_ids=tile.class_ids,
    )
    return reader(window)


def _shape(instance: dict, height: int, width: int) -> RunMask:
    """An instance as it is stored. One that the tile cuts is never taken as whole, whatever the window."""
    box = tuple(instance["box"]) if instance["whole"] else (-1, -1, height + 1, width + 1)
    return RunMask(
        box=box, area=instance["area"], runs=np.array(instance["runs"], np.int64), height=height, width=width
    )


def _cell_type():
    import pyarrow as arrow

    return arrow.binary()


def _store_cells(example: Example) -> bytes:
    return encode_image(example.class_raster[..., None])


def _known_cells(example: Example, class_count: int) -> KnownLabels:
    raster = example.class_raster

    def labels(window: Window) -> np.ndarray:
        y1, x1, y2, x2 = window.box
        return raster[y1:y2, x1:x2]

    found = find_classes(labels, *raster.shape, class_count)
    return KnownLabels(
        class_ids=found.class_ids.tolist(), boxes=found.boxes.tolist(), counts=found.cells[1:].tolist()
    )


def _read_cells(tile: Tile, stored: bytes, pixels: PixelSource, window: Window | None) -> Example:
    with MemoryFile(stored) as file:

        def labels(part: Window) -> np.ndarray:
            raster = read_pixels(file.name, part)[0][..., 0]
            return np.where(raster < 0, raster, tile.new_ids[raster]).astype(np.int16)

        reader = CellReader(
            pixels=pixels, labels=labels, name=tile.name, height=tile.height, width=tile.width
        )
        return reader(window)


def _class_type():
    import pyarrow as arrow

    return arrow.int32()


def _known_class(example: Example, class_count: int) -> KnownLabels:
    counts = [int(number == example.class_id) for number in range(1, class_count + 1)]
    box = (0, 0, *example.image.shape[:2])
    return KnownLabels(class_ids=[example.class_id], boxes=[box], counts=counts)


def _read_class(tile: Tile, stored: int, pixels: PixelSource, window: Window | None) -> Example:
    reader = ClassReader(
        pixels=pixels,
        name=tile.name,
        height=tile.height,
        width=tile.width,
        class_id=int(tile.new_ids[stored]),
    )
    return reader(window)


KINDS = {
    OBJECT_LABELS: LabelStore(
        column="instances",
        type=_object_type,
        store=_store_objects,
        known=_known_objects,
        read=_read_objects,
    ),
    CELL_LABELS: LabelStore(
        column="class_raster", type=_cell_type, store=_store_cells, known=_known_cells, read=_read_cells
    ),
    IMAGE_LABELS: LabelStore(
        column="class_id",
        type=_class_type,
        store=lambda example: example.class_id,
        known=_known_class,
        read=_read_class,
    ),
}
