"""Raster maps with vector maps of labelled areas as training data.

All areas of a category are one object, as everywhere in GRASS. With training areas, each of them is an
image of its own that shows nothing outside of it: what is not labelled must not be learnt as background,
and what is kept for validation is other ground than what is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely

from ann.data.band_labels import known_labels
from ann.data.dataset import Dataset, LabelledImage, check_classes, check_labels, name_some
from ann.data.ground import Groups
from ann.data.outlines.masks import paste
from ann.data.outlines.objects import Label, Sieve, check_drawn, far_apart, far_apart_note
from ann.data.outlines.shapes import Polygons, covers_pixel
from ann.data.pixels.rasters import ImageHeader
from ann.data.pixels.windows import Window, whole
from ann.data.readers.class_column import AS_THEY_ARE, AttributeTable, ClassValues, class_names
from ann.data.readers.labelled_image import labelled_image
from ann.errors import DatasetError
from ann.grass.areas import Area, find_vector, read_areas, read_columns, turns
from ann.grass.bands import Band, cells_inside, common_dtype, find_bands, read_cells
from ann.grass.region import Grid, computational_region, ground_size
from ann.grass.scenes import maps_of_scenes, split


@dataclass(frozen=True, kw_only=True, eq=False)
class MapPixels:
    """Reads windows of the cells of a grid; `ground`: those alone that are in it (in cells of the grid)."""

    bands: tuple[Band, ...]
    grid: Grid
    ground: Polygons | None = None

    def __call__(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """The image (H, W, C) and where it has data, (H, W) bool, or None for everywhere."""
        part = self.grid.part(window.row, window.column, window.height, window.width)
        pixels, valid = read_cells(self.bands, part)
        if self.ground is not None:
            inside = self.ground.inside(window)
            valid = valid & paste(inside, *valid.shape) if inside else np.zeros_like(valid)
            pixels[~valid] = 0
        return pixels, None if valid.all() else valid


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Ground to train on: cells of a scene, or of a training area in it (`ground`, in cells of the grid).

    source: blocks of the same source have ground in common.
    """

    name: str
    source: str
    bands: tuple[Band, ...]
    grid: Grid
    ground: Polygons | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledObject:
    """What the label maps say of one object."""

    class_id: int
    areas: tuple[Area, ...]
    place: str


def open_maps(
    options: Mapping[str, str], classes: Sequence[str], class_values: ClassValues = AS_THEY_ARE
) -> Dataset:
    """The dataset of the options band1, band2, band3 or group, labels, class_column and training_areas.

    class_values: what the values of the class column mean.
    The maps' own cells are used as far as they lie in the computational region. Memory is that of the
    outlines; pixels are read when they are asked for.

    Raises:
        AnnError: a map that isn't there or has no areas, an unclear class column, areas without a class
            or of one that isn't in `classes`, a class without any area on the maps.
    """
    classes = check_classes(classes)
    extent = computational_region()
    scenes = [find_bands(maps) for maps in maps_of_scenes(options)]
    blocks = make_blocks(scenes, extent, options["training_areas"] or None)
    notes: list[str] = []
    names: dict[str, list[str]] = {}
    objects: list[LabelledObject] = []
    grids = [block.grid for block in blocks]
    maps = list(dict.fromkeys(find_vector(name) for name in split(options["labels"])))
    members = {labels: group_areas(labels, read_areas(labels, grids), notes) for labels in maps}
    found = classes_of(members, classes, options["class_column"] or None, class_values, notes)
    for labels, categories in found.items():
        for category, class_name in categories.items():
            place = f"<{labels}> category {category}"
            names.setdefault(class_name, []).append(place)
            if class_name in classes:
                class_id = classes.index(class_name) + 1
                areas = tuple(members[labels][category])
                objects.append(LabelledObject(class_id=class_id, areas=areas, place=place))
    where = f"on the maps{' in the training areas' if options['training_areas'] else ''}, in the region"
    if not objects and not names:
        raise DatasetError(
            f"No area of {options['labels']} lies {where}. Look where the labels are, and set the region to "
            f"the maps: g.region raster={scenes[0][0]}"
        )
    check_labels(names, classes, "Areas of a class", class_values=True)
    images, ignored = place_objects(blocks, objects, len(classes))
    check_drawn(images, classes, ignored, f"areas {where}")
    notes += ignored
    return Dataset(classes=classes, images=tuple(images), notes=tuple(dict.fromkeys(notes)))


def make_blocks(scenes: Sequence[tuple[Band, ...]], extent: Grid, training_areas: str | None) -> list[Block]:
    """The cells of each scene in `extent`; with a map of training areas one block for each of its areas.

    Raises:
        AnnError: a scene outside of the extent, no such map, or no area of it on any scene.
    """
    grids = [cells_inside(bands[0], extent) for bands in scenes]
    for bands, grid in zip(scenes, grids, strict=True):
        if grid.east > bands[0].grid.east + grid.column_size / 2:
            raise DatasetError(
                f"The computational region goes across the edge of <{bands[0]}>, where labels have other "
                "longitudes than the region. Set it to one side of the edge, or to the map (g.region raster=)"
            )
    if training_areas is None:
        sources = common_ground(grids)
        return [
            Block(name=str(bands[0]), source=str(scenes[source][0]), bands=bands, grid=grid)
            for bands, grid, source in zip(scenes, grids, sources, strict=True)
        ]
    name = find_vector(training_areas)
    blocks = []
    tree = shapely.STRtree(_boxes(grids))
    areas = [
        (number, area.moved(turn) if turn else area)
        for number, area in enumerate(read_areas(name, grids), start=1)
        for turn in turns()
    ]
    for number, area in areas:
        for index in np.sort(tree.query(_boxes([area.extent])[0])):
            bands = scenes[index]
            part = grids[index].limited_to(area.extent) if area.categories else None
            if part is None:
                continue
            ground = Polygons.from_parts((area.pixel_rings(part),))
            if covers_pixel(ground, whole(part.rows, part.columns)):
                label = f"{bands[0]}, training area {area.categories[0]}"
                source = f"<{name}> area {number}"
                blocks.append(Block(name=label, source=source, bands=bands, grid=part, ground=ground))
    if not blocks:
        raise DatasetError(
            f"No area of <{name}> that has a category lies on the maps, in the computational region. "
            "Look where the training areas are, and set the region with g.region"
        )
    return blocks


def common_ground(grids: Sequence[Grid]) -> list[int]:
    """For each grid the first one that it is connected with by grids that overlap."""
    boxes = _boxes(grids)
    pairs = [
        (one, other)
        for one, other in shapely.STRtree(boxes).query(boxes).T.tolist()
        if one < other and grids[one].overlaps(grids[other])
    ]
    groups = Groups(len(grids))
    for one, other in pairs:
        groups.join(one, other)
    return [groups.first(index) for index in range(len(grids))]


def group_areas(name: str, areas: Sequence[Area], notes: list[str]) -> dict[int, list[Area]]:
    """The areas of each category; what a person should know of them is added to `notes`.

    Raises:
        DatasetError: there are areas, but none has a category.
    """
    members: dict[int, list[Area]] = {}
    for area in areas:
        for category in area.categories:
            members.setdefault(category, []).append(area)
    without = sum(not area.categories for area in areas)
    if areas and not members:
        raise DatasetError(
            f"No area of <{name}> has a category in layer 1. Add centroids with categories: v.centroids"
        )
    if without:
        notes.append(
            f"{without} area(s) of <{name}> without a centroid or category, as holes are, are background."
        )
    scattered = [
        category for category, parts in members.items() if far_apart([_box([area]) for area in parts])
    ]
    if scattered:
        categories = [f"category {category}" for category in scattered]
        way_out = "give each its own category with v.category"
        notes.append(far_apart_note(f"<{name}>", "areas", categories, way_out))
    return members


def place_objects(
    blocks: Sequence[Block], objects: Sequence[LabelledObject], class_count: int
) -> tuple[list[LabelledImage], list[str]]:
    """An image for each block, with the objects of which a cell's centre is inside; and notes on others."""
    boxes = np.array([_box(one.areas) for one in objects]).reshape(-1, 4)  # west, south, east, north
    tree = shapely.STRtree(shapely.box(*boxes.T))
    sieve = Sieve()
    images = []
    for block in blocks:
        grid = block.grid
        frame = whole(grid.rows, grid.columns)
        labels = []
        for turn in turns():
            extent = replace(grid, west=grid.west - turn)
            for index in np.sort(tree.query(_boxes([extent])[0])):
                one = objects[index]
                shape = Polygons.from_parts(tuple(area.pixel_rings(extent) for area in one.areas))
                labels.append(Label(shape=shape, class_id=one.class_id, place=one.place))
        kept = sieve.keep(labels, frame, block.ground)
        images.append(_image(block, kept, class_count))
    return images, sieve.notes()


def _image(block: Block, kept: Sequence[Label], class_count: int) -> LabelledImage:
    grid = block.grid
    header = map_header(block.bands, grid, block.name)
    pixels = MapPixels(bands=block.bands, grid=grid, ground=block.ground)
    shapes, class_ids = [label.shape for label in kept], [label.class_id for label in kept]
    image = labelled_image(header, shapes, class_ids, class_count, name=block.name, pixels=pixels)
    return replace(image, source=block.source, extent=(grid.west, grid.south, grid.east, grid.north))


def map_header(bands: Sequence[Band], grid: Grid, name: str) -> ImageHeader:
    """What the header of a file would say of the cells of a grid."""
    return ImageHeader(
        path=name,
        height=grid.rows,
        width=grid.columns,
        bands=len(bands),
        dtype=str(common_dtype(bands)),
        pixel_size=ground_size(grid),
        band_labels=known_labels([band.label for band in bands]),
    )


def classes_of(
    members: Mapping[str, Mapping[int, Sequence[Area]]],
    classes: Sequence[str],
    class_column: str | None,
    class_values: ClassValues,
    notes: list[str],
) -> dict[str, dict[int, str]]:
    """The class of each category of each map.

    Raises:
        DatasetError: the column isn't there or unclear, or a category has no class.
    """
    tables = []
    for name, categories in members.items():
        if categories:
            key, columns = read_columns(name)
            if key != class_column:
                columns.pop(key, None)
            fields = {
                column: [rows.get(category) for category in sorted(categories)]
                for column, rows in columns.items()
            }
            tables.append(AttributeTable(source=f"<{name}>", columns=fields, count=len(categories)))
    found, remarks = class_names(tables, classes, class_column, class_values)
    notes.extend(remarks)
    named = {}
    maps = [name for name, categories in members.items() if categories]
    for name, texts in zip(maps, found, strict=True):
        named[name] = dict(zip(sorted(members[name]), texts.tolist(), strict=True))
        unnamed = [str(category) for category, text in named[name].items() if not text]
        if unnamed:
            raise DatasetError(
                f"{len(unnamed)} object(s) of <{name}> have no class: categories {name_some(unnamed)}. "
                "Fill the column (v.db.update), add rows that are missing (INSERT INTO with db.execute), "
                f"give them a class with class_values=*:{classes[0]}, or delete the areas (v.edit "
                "tool=delete)"
            )
    return named


def _boxes(grids: Sequence[Grid]) -> np.ndarray:
    return shapely.box(*np.array([(one.west, one.south, one.east, one.north) for one in grids]).T)


def _box(areas: Sequence[Area]) -> tuple[float, float, float, float]:
    outlines = np.concatenate([area.rings[0] for area in areas])
    return (*outlines.min(axis=0).tolist(), *outlines.max(axis=0).tolist())
