"""Raster maps with a raster map of classes as training data: its categories are labelled with their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import grass.script as gs
import numpy as np

from ann.data.dataset import CELL_LABELS, Dataset, check_classes
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.pixels.windows import Window
from ann.data.readers.labelled_cells import check_occurring, find_classes, labelled_cells
from ann.data.samples.values import check_pixel_sizes
from ann.data.text import plain
from ann.errors import DatasetError
from ann.grass.bands import Band, cells_inside, find_band, find_bands, read_cells
from ann.grass.labels import MapPixels, common_ground, map_header
from ann.grass.region import Grid, computational_region
from ann.grass.scenes import maps_of_scenes


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMap:
    """Called with a window of the grid it gives class ids (H, W) int16; NULL is UNKNOWN.

    class_ids: of each category; others are the background.
    """

    band: Band
    grid: Grid
    class_ids: Mapping[int, int]

    def __call__(self, window: Window) -> np.ndarray:
        part = self.grid.part(window.row, window.column, window.height, window.width)
        cells, valid = read_cells((self.band,), part)
        categories, places = np.unique(cells[..., 0], return_inverse=True)
        ids = np.array([self.class_ids.get(int(one), 0) for one in categories], dtype=np.int16)
        return np.where(valid, ids[places].reshape(valid.shape), UNKNOWN).astype(np.int16)


def open_label_raster(options: Mapping[str, str], classes: Sequence[str]) -> Dataset:
    """The dataset of the options band1, band2, band3 or group and label_raster.

    Raises:
        AnnError: a map that isn't there; labels that are no whole numbers, or have other cells than the
            bands; a class that no category is labelled with, or several; labels in the region that nothing
            can be learnt from (`check_occurring`); scenes of too different pixel sizes.
    """
    classes = check_classes(classes)
    extent = computational_region()
    label = find_band(options["label_raster"])
    if label.dtype.kind == "f":
        raise DatasetError(
            f"The label raster <{label}> has fractions. Classes are categories of a CELL map: "
            f"r.mapcalc expression='classes = int({label.name})'"
        )
    class_ids = _class_ids(label, classes)
    scenes = [find_bands(maps) for maps in maps_of_scenes(options)]
    grids = [cells_inside(bands[0], extent) for bands in scenes]
    images, found = [], []
    for bands, grid, source in zip(scenes, grids, common_ground(grids), strict=True):
        if not label.grid.limited_to(grid) or not _aligned(label.grid, grid):
            raise DatasetError(
                f"The label raster <{label}> has other cells than <{bands[0]}>, or lies elsewhere. "
                f"Resample it to them: g.region raster={bands[0]}; r.resample"
            )
        labels = LabelMap(band=label, grid=grid, class_ids=class_ids)
        found.append(find_classes(labels, grid.rows, grid.columns, len(classes)))
        name, pixels = str(bands[0]), MapPixels(bands=bands, grid=grid)
        image = labelled_cells(map_header(bands, grid, name), labels, found[-1], name=name, pixels=pixels)
        extent = (grid.west, grid.south, grid.east, grid.north)
        images.append(replace(image, source=str(scenes[source][0]), extent=extent))
    check_occurring(images, found, classes, "Cells of a class")
    return check_pixel_sizes(Dataset(classes=classes, images=tuple(images), labels=CELL_LABELS))


def _class_ids(label: Band, classes: Sequence[str]) -> dict[int, int]:
    """The class id of each category whose label is the name of a class."""
    text = gs.read_command("r.category", map=str(label), separator="tab", quiet=True)
    named: dict[str, list[int]] = {}
    for line in text.splitlines():
        category, _, name = line.partition("\t")
        if name.strip() and category.strip().lstrip("-").isdigit():
            named.setdefault(plain(name), []).append(int(category))
    missing = [name for name in classes if name not in named]
    if missing:
        raise DatasetError(
            f"No category of <{label}> is labelled {', '.join(map(repr, missing))}; there are "
            f"{', '.join(map(repr, named)) or 'no labels at all'}. Name the categories with r.category, or "
            "leave the class out of classes="
        )
    twice = [name for name in classes if len(named[name]) > 1]
    if twice:
        raise DatasetError(
            f"Several categories of <{label}> are labelled {', '.join(map(repr, twice))}. Join them: "
            "r.reclass"
        )
    return {named[name][0]: number for number, name in enumerate(classes, start=1)}


def _aligned(labels: Grid, cells: Grid) -> bool:
    """Whether the cells of both grids are the same where they overlap."""
    return (
        abs(labels.row_size - cells.row_size) < 1e-6 * cells.row_size
        and abs(labels.column_size - cells.column_size) < 1e-6 * cells.column_size
        and _whole((labels.north - cells.north) / cells.row_size)
        and _whole((labels.west - cells.west) / cells.column_size)
    )


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-3
