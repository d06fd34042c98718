"""Pairs of rasters: an image, and beside it a raster of the same size with the class of each cell.

    images/tile_1.tif, labels/tile_1.tif, or masks/ gt/ map/ ... in place of labels/, and sat/ of images/

Folders of images may lie at any depth, each with its folder of labels beside it. A pair has the same name but
for the ending. Label rasters hold class numbers, 0 and 255, a palette or colours; see `label_values`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows

from ann.data.dataset import CELL_LABELS, Dataset, check_bands, check_classes, name_some
from ann.data.folders import files_with_suffix, walk
from ann.data.ground import join_ground
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import LabelValues, pack_colours
from ann.data.pixels.decoded import Decoded
from ann.data.pixels.rasters import IMAGE_SUFFIXES, ImageHeader, open_image, read_header, read_pixels
from ann.data.pixels.windows import Window
from ann.data.readers.labelled_cells import check_occurring, find_classes, labelled_cells
from ann.data.samples.values import check_headers
from ann.data.text import plain
from ann.errors import DatasetError

IMAGE_FOLDERS = ("images", "image", "img", "imgs", "sat")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt", "map", "maps", "annotations")


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
        values, known = read_pixels(self.path, window, _read_colours if self.values.colours else _read_bands)
        if known is None:
            known = np.ones(values.shape[:2], bool)
        classes = np.full(known.shape, UNKNOWN, np.int16)
        numbers = self._whole_numbers(values[known])
        classes[known] = self.values.class_raster(numbers, self.class_count, self.path)
        return classes

    def _whole_numbers(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) as `LabelValues` knows them, of those of all bands (N, C)."""
        if self.values.colours:
            return pack_colours(values)
        first = values[:, 0]
        if values.shape[1] >= 3 and (values[:, :3] != values[:, :1]).any():
            raise DatasetError(
                f"Label raster {self.path} shows classes by colours. Say what they mean: "
                "class_values=#RRGGBB:class,..."
            )
        if first.dtype.kind != "f":
            return first
        whole_numbers = first.astype(np.int64)
        if (whole_numbers != first).any():
            raise DatasetError(
                f"Label raster {self.path} has fractions. Expected whole numbers or colours: store it as Byte"
            )
        return whole_numbers


def _read_bands(source: rasterio.DatasetReader, window: Window) -> Decoded:
    """All bands (H, W, C), and (H, W) bool that is False where the first has the no-data value, or None."""
    area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
    known = None if source.nodata is None else source.read_masks(1, window=area) != 0
    return np.ascontiguousarray(np.moveaxis(source.read(window=area), 0, -1)), known


def _read_colours(source: rasterio.DatasetReader, window: Window) -> Decoded:
    """As `_read_bands`, red, green and blue of a palette or of greys, too."""
    values, known = _read_bands(source, window)
    if source.colorinterp[0].name == "palette":
        palette = source.colormap(1)
        table = np.zeros((max(palette) + 1, 3), np.uint8)
        table[list(palette)] = [colour[:3] for colour in palette.values()]
        return table[values[..., 0]], known
    return (values if values.shape[2] >= 3 else np.repeat(values[..., :1], 3, axis=2)), known


def find_pairs(path: str | Path) -> list[Pair]:
    """The pairs below a directory, sorted; none where no folder of images has one of labels beside it.

    Raises:
        DatasetError: an image without a label raster, the reverse, or two files of one name.
    """
    names_in = dict(walk(path))
    beside: dict[Path, dict[str, Path]] = {}
    for directory in names_in:
        beside.setdefault(directory.parent, {})[directory.name.lower()] = directory
    pairs = []
    for directories in beside.values():
        images, labels = (
            next((directories[name] for name in names if name in directories), None)
            for names in (IMAGE_FOLDERS, LABEL_FOLDERS)
        )
        if images and labels:
            pairs += _match(images, labels, names_in)
    return sorted(pairs, key=lambda pair: pair.image)


def _match(images: Path, labels: Path, names_in: Mapping[Path, list[str]]) -> list[Pair]:
    found = [_by_stem(folder, names_in[folder]) for folder in (images, labels)]
    if not found[1]:  # such folders hold labels of other formats, too
        return []
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


def _by_stem(folder: Path, names: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in files_with_suffix(folder, names, IMAGE_SUFFIXES):
        other = files.setdefault(plain(file.stem), file)
        if other != file:
            raise DatasetError(f"{other} and {file} have the same name. Keep one of them")
    return files


def read_pairs(
    path: str | Path,
    pairs: Sequence[Pair],
    classes: Sequence[str],
    values: LabelValues,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Open the pairs found below a directory. All label rasters are read once, in strips.

    Images that show the same ground get the same `source`; report: told how many have been looked at.

    Raises:
        DatasetError: a pair whose rasters differ in size or in georeference; labels stored as JPEG; a value
            that means no class; labels that nothing can be learnt from (`check_occurring`); images that can't
            be trained on together.
    """
    classes = check_classes(classes)
    count = len(classes)
    labels = [LabelRaster(path=str(pair.labels), values=values, class_count=count) for pair in pairs]
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        headers = list(workers.map(_check_pair, pairs))
        check_bands(headers)
        found = list(
            workers.map(
                lambda one, header: find_classes(one, header.height, header.width, count), labels, headers
            )
        )
    names = [pair.image.relative_to(path).as_posix() for pair in pairs]
    images = tuple(
        labelled_cells(header, raster, occurrence, name=name)
        for header, raster, occurrence, name in zip(headers, labels, found, names, strict=True)
    )
    check_occurring(images, found, classes, "Labels of a class")
    return check_headers(join_ground(Dataset(classes=classes, images=images, labels=CELL_LABELS), report))


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
