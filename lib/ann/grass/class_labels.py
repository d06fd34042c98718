"""Raster maps with features of a vector map, each of a class, as training data: the chip around each is an
image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ann.data.band_labels import known_labels
from ann.data.blocks import join_blocks
from ann.data.dataset import IMAGE_LABELS, Dataset, check_classes, check_labels, name_some
from ann.data.outlines.shapes import Polygons
from ann.data.pixels.means import fitted_size
from ann.data.pixels.rasters import ImageHeader
from ann.data.readers.class_column import ClassValues
from ann.data.readers.image_classes import image_of_class
from ann.data.text import split_names
from ann.errors import DatasetError
from ann.grass.areas import Area, find_vector, read_areas
from ann.grass.bands import Band, cells_inside, common_dtype, find_bands
from ann.grass.chips import ChipPixels, chip_boxes, chip_windows
from ann.grass.features import Features, read_features
from ann.grass.labels import classes_of
from ann.grass.options import positive
from ann.grass.region import Grid, computational_region, ground_size
from ann.grass.scenes import maps_of_scenes, split

CHIPS_PER_BLOCK = 5  # the side of the squares of ground that are never divided, in chips


@dataclass(frozen=True, kw_only=True)
class ChipRules:
    """How chips are cut. side: map units, None for as large as the feature; cells: of those around points
    then. longest: pixels that are needed of their sides, see `shrink`. inside: cells outside of areas are not
    seen.
    """

    side: float | None
    cells: int
    longest: int
    inside: bool


def open_feature_classes(
    options: Mapping[str, str], classes: Sequence[str], side: int, longest: int
) -> Dataset:
    """The dataset of the options band1, band2, band3 or group, labels, class_column, class_values, chip_size,
    chip, scenes and block_size.

    side: pixels of the network's input; longest: that are needed of an image.

    Raises:
        AnnError: a map that isn't there; no feature, or none on the maps; an unclear class column, features
            without a class or of one that isn't in `classes`.
    """
    extent = computational_region()
    scenes = [find_bands(maps) for maps in maps_of_scenes(options)]
    grids = [cells_inside(bands[0], extent) for bands in scenes]
    maps = list(dict.fromkeys(find_vector(name) for name in split(options["labels"])))
    features = {name: read_features(name) for name in maps}
    rules = ChipRules(
        side=positive(options["chip_size"], "chip_size"),
        cells=side,
        longest=longest,
        inside=options["chip"] == "inside",
    )
    if rules.inside and any(one.kind == "point" for one in features.values()):
        raise DatasetError(f"chip=inside needs areas, but {options['labels']} has points. Leave it out")
    notes: list[str] = []
    names, found = _classes(features, options, classes, notes)
    images = []
    labelled: dict[str, list[str]] = {}
    for bands, grid in zip(scenes, grids, strict=True):
        for name, one in features.items():
            for category, cells, ground in _chips(bands, grid, one, rules, notes):
                class_name = found[name][category]
                where = f"<{name}> category {category}"
                labelled.setdefault(class_name, []).append(where)
                if class_name in names:
                    pixels = ChipPixels(bands=bands, grid=cells, longest=longest, ground=ground)
                    image = image_of_class(
                        _header(f"{where} on <{bands[0]}>", pixels),
                        pixels,
                        name=f"{where} on <{bands[0]}>",
                        class_id=names.index(class_name) + 1,
                        class_count=len(names),
                    )
                    corners = (cells.west, cells.south, cells.east, cells.north)
                    images.append(replace(image, extent=corners))
    if not labelled:
        raise DatasetError(
            f"No feature of {options['labels']} lies on the maps, in the computational region. Look where "
            f"the "
            f"labels are, and set the region to the maps: g.region raster={scenes[0][0]}"
        )
    check_labels(labelled, names, "Features of a class", class_values=True)
    dataset = Dataset(
        classes=names, images=tuple(images), labels=IMAGE_LABELS, notes=tuple(dict.fromkeys(notes))
    )
    if options["scenes"] != "image":
        widths = [image.extent[2] - image.extent[0] for image in images]
        block = positive(options["block_size"], "block_size") or CHIPS_PER_BLOCK * float(np.median(widths))
        dataset = join_blocks(dataset, block)
    return dataset


def _classes(
    features: Mapping[str, Features], options: Mapping[str, str], classes: Sequence[str], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, dict[int, str]]]:
    """The classes, and for each map the class of each category."""
    column = options["class_column"] or None
    if not classes and not column:
        raise DatasetError("Name the column with the classes (class_column=), or the classes (classes=)")
    values = ClassValues.parse(split_names(options["class_values"]), classes)
    members = {name: dict.fromkeys(one.categories.tolist(), ()) for name, one in features.items()}
    found = classes_of(members, classes, column, values, notes)
    occurring = sorted({name for of_map in found.values() for name in of_map.values()})
    return check_classes(classes or occurring), found


def _chips(
    bands: tuple[Band, ...], grid: Grid, features: Features, rules: ChipRules, notes: list[str]
) -> Iterator[tuple[int, Grid, Polygons | None]]:
    """For each feature that has cells in a grid its category, the cells of its chip, and what is seen of
    them."""
    smallest = grid.row_size * (rules.cells if features.kind == "point" else 1)
    windows = chip_windows(chip_boxes(features.boxes, rules.side, smallest), grid)
    there = (windows[:, 2] > windows[:, 0]) & (windows[:, 3] > windows[:, 1])
    if not there.all():
        lost = [f"category {category}" for category in features.categories[~there].tolist()]
        notes.append(
            f"{len(lost)} feature(s) of <{features.map}> lie outside of <{bands[0]}>: {name_some(lost)}."
        )
    areas = _areas(features.map, grid) if rules.inside else {}
    for index in np.flatnonzero(there).tolist():
        category = int(features.categories[index])
        y1, x1, y2, x2 = windows[index].tolist()
        cells = grid.part(y1, x1, y2 - y1, x2 - x1)
        ground = None
        if rules.inside:
            ground = Polygons.from_parts(tuple(area.pixel_rings(cells) for area in areas[category]))
        yield category, cells, ground


def _header(name: str, pixels: ChipPixels) -> ImageHeader:
    """What is known of a chip as the network gets it."""
    cells = pixels.grid
    height, width = fitted_size(cells.rows, cells.columns, pixels.longest)
    size = ground_size(cells)
    return ImageHeader(
        path=name,
        height=height,
        width=width,
        bands=len(pixels.bands),
        dtype=str(common_dtype(pixels.bands)),
        band_labels=known_labels([band.label for band in pixels.bands]),
        pixel_size=None if size is None else size * cells.rows / height,
    )


def _areas(name: str, grid: Grid) -> dict[int, list[Area]]:
    """The areas of each category that meet a grid."""
    members: dict[int, list[Area]] = {}
    for area in read_areas(name, [grid]):
        for category in area.categories:
            members.setdefault(category, []).append(area)
    return members
