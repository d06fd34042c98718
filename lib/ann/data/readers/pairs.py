"""Pairs of rasters: an image, and beside it a raster of the same size with the class of each cell.

    images/tile_1.tif, labels/tile_1.tif, or masks/ gt/ map/ ... in place of labels/, and sat/ of images/

Folders of images may lie at any depth, each with its folder of labels beside it. A pair has the same name but
for the ending. Label rasters hold class numbers, 0 and 255, a palette or colours; see `label_values`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.windows

from ann.data.dataset import (
    Dataset,
    LabelledImage,
    check_bands,
    check_classes,
    check_labels,
    name_some,
)
from ann.data.example import Example
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import LabelValues, pack_colours
from ann.data.pixels.rasters import IMAGE_SUFFIXES, ImageHeader, open_image, read_header, read_pixels
from ann.data.pixels.windows import Window, whole
from ann.errors import DatasetError

IMAGE_FOLDERS = ("images", "image", "img", "imgs", "sat")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt", "map", "maps", "annotations")
STRIP_ROWS = 1024  # of a label raster that are read at once when it is checked
BLOCK = 32  # cells; where labels lie is kept by blocks of that side, and larger ones of large images
MOST_BLOCKS = 32  # along a side


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its label raster."""

    image: Path
    labels: Path


@dataclass(frozen=True, kw_only=True)
class LabelRaster:
    """A label raster file: called with a window it gives class ids (H, W) int16, see `class_raster`.

    values: what its values mean.
    """

    path: str
    values: LabelValues
    class_count: int

    def __call__(self, window: Window) -> np.ndarray:
        area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
        with open_image(self.path) as source:
            raster = source.read(window=area)
            palette = source.colormap(1) if source.colorinterp[0].name == "palette" else None
            known = source.read_masks(1, window=area) != 0 if source.nodata is not None else None
        classes = self.values.class_raster(self._whole_numbers(raster, palette), self.class_count, self.path)
        if known is not None:
            classes[~known] = UNKNOWN
        return classes

    def _whole_numbers(self, raster: np.ndarray, palette) -> np.ndarray:
        """Values (H, W) as `LabelValues` knows them, of the bands (C, H, W) of a file."""
        if self.values.colours:
            if palette is not None:
                table = np.zeros((max(palette) + 1, 3), np.uint8)
                table[list(palette)] = [colour[:3] for colour in palette.values()]
                return pack_colours(table[raster[0]])
            if len(raster) == 1:
                return pack_colours(np.repeat(raster, 3, axis=0).transpose(1, 2, 0))
            return pack_colours(raster.transpose(1, 2, 0))
        if len(raster) >= 3 and (raster[:3] != raster[0]).any():
            raise DatasetError(
                f"Label raster {self.path} shows classes by colours. Say what they mean: "
                "class_values=#RRGGBB:class,..."
            )
        if raster.dtype.kind == "f":
            whole_numbers = raster[0].astype(np.int64)
            if (whole_numbers != raster[0]).any():
                raise DatasetError(
                    f"Label raster {self.path} has fractions. Expected whole numbers or "
                    "colours: store it as Byte"
                )
            return whole_numbers
        return raster[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairReader:
    """Reads windows of an image with the class of each cell."""

    image: str
    labels: LabelRaster
    name: str
    height: int
    width: int

    def __call__(self, window: Window | None = None) -> Example:
        """The window, or the whole image; cells without data have no known class."""
        part = window or whole(self.height, self.width)
        image, valid = read_pixels(self.image, part)
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


def find_pairs(path: str | Path) -> list[Pair]:
    """The pairs below a directory, sorted; none where no folder of images has one of labels beside it.

    Raises:
        DatasetError: an image without a label raster, the reverse, or two files of one name.
    """
    pairs = [pair for folders in _folders(path) for pair in _match(*folders)]
    return sorted(pairs, key=lambda pair: pair.image)


def _folders(path: str | Path) -> Iterator[tuple[Path, Path]]:
    """Folders of images with their folders of labels."""
    for directory, names, _ in os.walk(path, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        by_name = {name.lower(): name for name in names}
        image = next((by_name[name] for name in IMAGE_FOLDERS if name in by_name), None)
        labels = next((by_name[name] for name in LABEL_FOLDERS if name in by_name), None)
        if image and labels:
            yield Path(directory, image), Path(directory, labels)


def _match(images: Path, labels: Path) -> list[Pair]:
    found = [_by_stem(folder) for folder in (images, labels)]
    for one, other, what in (
        (0, 1, "images without a label raster"),
        (1, 0, "label rasters without an image"),
    ):
        alone = sorted(set(found[one]) - set(found[other]))
        if alone:
            names = name_some([str(found[one][stem]) for stem in alone])
            raise DatasetError(
                f"{len(alone)} {what} in {(labels, images)[one]}: {names}. Files of a pair have the "
                "same name; add what is missing or take the others out"
            )
    return [Pair(image=found[0][stem], labels=found[1][stem]) for stem in found[0]]


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if file.stem in files:
            raise DatasetError(f"{files[file.stem]} and {file} have the same name. Keep one of them")
        files[file.stem] = file
    return files


def read_pairs(path: str | Path, classes: Sequence[str], values: LabelValues) -> Dataset:
    """Open pairs of rasters. All label rasters are read once, in strips; of images only the header is.

    Raises:
        DatasetError: no pair; one whose rasters differ in size or in georeference; labels stored as JPEG; a
            value that means no class; a class, or the background, that nowhere occurs.
    """
    classes = check_classes(classes)
    pairs = find_pairs(path)
    if not pairs:
        raise DatasetError(f"No pairs of images and label rasters found in {path}")
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        headers = list(workers.map(lambda pair: _check_pair(pair), pairs))
        check_bands(headers)
        images = list(
            workers.map(
                lambda pair, header: _labelled_image(pair, header, Path(path), len(classes), values),
                pairs,
                headers,
            )
        )
    occurring = {
        name: [image.path for image in images if image.instance_counts[number]]
        for number, name in enumerate(classes)
    }
    check_labels({name: paths for name, paths in occurring.items() if paths}, classes, "Labels of a class")
    return Dataset(classes=classes, images=tuple(images))


def _check_pair(pair: Pair) -> ImageHeader:
    header = read_header(pair.image)
    with open_image(pair.image) as image, open_image(pair.labels) as labels:
        if labels.driver == "JPEG":
            raise DatasetError(
                f"Label raster {pair.labels} is stored as JPEG, which blurs the borders between classes. "
                "Export it as PNG or TIFF"
            )
        if (labels.height, labels.width) != (image.height, image.width):
            raise DatasetError(
                f"Label raster {pair.labels} has {labels.height} x {labels.width} cells, its image "
                f"{pair.image} {image.height} x {image.width}. Make the labels from the image at its "
                "full size"
            )
        placed = not image.transform.is_identity and not labels.transform.is_identity
        if placed and not image.transform.almost_equals(
            labels.transform, precision=abs(image.transform.a) / 10
        ):
            raise DatasetError(
                f"Label raster {pair.labels} lies elsewhere than its image {pair.image}: their "
                "georeferences differ. Make the labels on the image's own cells"
            )
        if placed and image.crs and labels.crs and image.crs != labels.crs:
            raise DatasetError(
                f"Label raster {pair.labels} has another reference system ({labels.crs}) than its image "
                f"{pair.image} ({image.crs}). Reproject one of them"
            )
    return header


def _labelled_image(
    pair: Pair, header: ImageHeader, root: Path, class_count: int, values: LabelValues
) -> LabelledImage:
    labels = LabelRaster(path=str(pair.labels), values=values, class_count=class_count)
    name = pair.image.relative_to(root).as_posix()
    boxes, class_ids, cells = find_classes(labels, header.height, header.width, class_count)
    return LabelledImage(
        name=name,
        path=header.path,
        height=header.height,
        width=header.width,
        bands=header.bands,
        dtype=header.dtype,
        instance_counts=cells,
        boxes=boxes,
        class_ids=class_ids,
        source=header.path,
        pixel_size=header.pixel_size,
        read=PairReader(
            image=header.path, labels=labels, name=name, height=header.height, width=header.width
        ),
    )


def find_classes(
    labels, height: int, width: int, class_count: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Where which class occurs in a label raster: blocks as boxes (N, 4) int32 with class ids (N,) int32, and
    the cells of each class.

    labels: gives the class ids of a window. Windows for training are chosen around the blocks.
    """
    block = max(BLOCK, -(-max(height, width) // MOST_BLOCKS))
    found: list[tuple[int, int, int, int]] = []
    ids: list[int] = []
    cells = np.zeros(class_count + 1, dtype=np.int64)
    strip = -(-STRIP_ROWS // block) * block
    for window in _strips(height, width, strip):
        raster = labels(window)
        cells += np.bincount(raster[raster > 0], minlength=class_count + 1)[: class_count + 1]
        rows, columns = -(-window.height // block), -(-window.width // block)
        padded = np.zeros((rows * block, columns * block), raster.dtype)
        padded[: window.height, : window.width] = raster
        blocks = padded.reshape(rows, block, columns, block)
        for class_id in range(1, class_count + 1):
            for row, column in np.argwhere((blocks == class_id).any(axis=(1, 3))):
                y, x = window.row + int(row) * block, int(column) * block
                found.append((y, x, min(y + block, height), min(x + block, width)))
                ids.append(class_id)
    boxes = np.array(found, dtype=np.int32).reshape(-1, 4)
    return boxes, np.array(ids, dtype=np.int32), tuple(int(count) for count in cells[1:])


def _strips(height: int, width: int, rows: int) -> Iterator[Window]:
    for row in range(0, height, rows):
        yield Window(row=row, column=0, height=min(rows, height - row), width=width)
