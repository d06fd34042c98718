"""From an image and the class of each of its cells to windows with class rasters, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.dataset import LabelledImage, check_labels
from ann.data.example import Example
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.pixels.rasters import ImageHeader
from ann.data.pixels.windows import Window, whole
from ann.data.readers.labelled_image import FilePixels, PixelSource
from ann.errors import DatasetError

STRIP_ROWS = 1024  # of a label raster that are read at once when it is looked through
BLOCK = 32  # cells; where labels lie is kept by blocks of that side, and larger ones of large images
MOST_BLOCKS = 32  # along a side

CellLabels = Callable[[Window], np.ndarray]  # class ids (H, W) int16 of a window, see `outlines.class_raster`


@dataclass(frozen=True, kw_only=True, eq=False)
class CellReader:
    """Reads windows of an image with the class of each cell. pixels: as for `ImageReader`."""

    pixels: PixelSource
    labels: CellLabels
    name: str
    height: int
    width: int

    def __call__(self, window: Window | None = None) -> Example:
        """The window, or the whole image; cells without data have no known class."""
        part = window or whole(self.height, self.width)
        image, valid = self.pixels(part)
        classes = self.labels(part)
        if valid is not None:
            classes[~valid] = UNKNOWN
        return Example(
            image=image,
            masks=(),
            class_ids=np.zeros(0, np.int32),
            name=self.name,
            valid=valid,
            class_raster=classes,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Occurrence:
    """Where which class occurs in a class raster.

    boxes: (N, 4) int32, (y1, x1, y2, x2), blocks of cells; class_ids: (N,) int32, of a class in each.
    cells: (K + 1,) int64, of the background and each class; those without a known class count nowhere.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    cells: np.ndarray


def find_classes(labels: CellLabels, height: int, width: int, class_count: int) -> Occurrence:
    """Look through a class raster, in strips. Windows for training are chosen around the blocks."""
    block = max(BLOCK, -(-max(height, width) // MOST_BLOCKS))
    found: list[tuple[int, int, int, int]] = []
    ids: list[int] = []
    cells = np.zeros(class_count + 1, dtype=np.int64)
    strip = -(-STRIP_ROWS // block) * block
    for window in _strips(height, width, strip):
        raster = labels(window)
        counts = np.bincount(raster[raster >= 0], minlength=class_count + 1)
        cells += counts
        rows, columns = -(-window.height // block), -(-window.width // block)
        padded = np.zeros((rows * block, columns * block), raster.dtype)
        padded[: window.height, : window.width] = raster
        blocks = padded.reshape(rows, block, columns, block)
        for class_id in (np.flatnonzero(counts[1:]) + 1).tolist():
            for row, column in np.argwhere((blocks == class_id).any(axis=(1, 3))):
                y, x = window.row + int(row) * block, int(column) * block
                found.append((y, x, min(y + block, height), min(x + block, width)))
                ids.append(class_id)
    return Occurrence(
        boxes=np.array(found, dtype=np.int32).reshape(-1, 4),
        class_ids=np.array(ids, dtype=np.int32),
        cells=cells,
    )


def _strips(height: int, width: int, rows: int) -> Iterator[Window]:
    for row in range(0, height, rows):
        yield Window(row=row, column=0, height=min(rows, height - row), width=width)


def labelled_cells(
    header: ImageHeader,
    labels: CellLabels,
    found: Occurrence,
    *,
    name: str,
    pixels: PixelSource | None = None,
) -> LabelledImage:
    """Put an image and the class of its cells together; `header.path` is the scene that isn't split.

    found: by `find_classes` in `labels`. pixels: where they come from; None: from the file `header.path`.
    """
    return LabelledImage(
        name=name,
        path=header.path,
        height=header.height,
        width=header.width,
        bands=header.bands,
        dtype=header.dtype,
        instance_counts=tuple(found.cells[1:].tolist()),
        boxes=found.boxes,
        class_ids=found.class_ids,
        source=header.path,
        pixel_size=header.pixel_size,
        place=header.place,
        band_labels=header.band_labels,
        read=CellReader(
            pixels=pixels or FilePixels(header.path),
            labels=labels,
            name=name,
            height=header.height,
            width=header.width,
        ),
    )


def check_occurring(
    images: Sequence[LabelledImage], found: Sequence[Occurrence], classes: Sequence[str], what: str
) -> None:
    """Refuse labels that nothing can be learnt from; what: how the data calls a class.

    Raises:
        DatasetError: no cell has a known class, all have the same, or a class has none.
    """
    cells = np.sum([one.cells for one in found], axis=0)
    if not cells.any():
        raise DatasetError(
            f"No cell of {images[0].path} {'and the others ' if len(images) > 1 else ''}has a label that "
            "counts: all are NULL, without data, or left out by ignore="
        )
    occurring = {
        name: [image.path for image in images if image.instance_counts[number]]
        for number, name in enumerate(classes)
    }
    check_labels({name: paths for name, paths in occurring.items() if paths}, classes, what)
    if np.count_nonzero(cells) == 1:
        raise DatasetError(
            f"All {cells.sum()} labelled cells are of the class {classes[int(cells.argmax()) - 1]!r}, so "
            "there is nothing to tell it from. Add images or ground where it is not, as background or of "
            "another class"
        )
