"""Raster maps with vector maps of labelled areas as training data.

All areas of a category are one object, as everywhere in GRASS. With training areas, each of them is an
image of its own that shows nothing outside of it: what is not labelled must not be learnt as background,
and what is kept for validation is other ground than what is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, check_classes, check_labels, name_some
from ann.data.outlines.masks import paste
from ann.data.outlines.shapes import Polygons, covers_pixel
from ann.data.pixels.rasters import ImageHeader
from ann.data.pixels.windows import Window, whole
from ann.data.readers.class_column import class_names
from ann.data.readers.labelled_image import labelled_image
from ann.errors import DatasetError
from ann.grass.areas import Area, find_vector, read_areas, read_columns
from ann.grass.bands import Band, cells_inside, common_dtype, find_bands, read_cells
from ann.grass.region import Grid, computational_region
from ann.grass.scenes import maps_of_scenes, split

FAR_APART = 4  # the box of an object is that many times as large as those of its areas together


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


def open_maps(options: Mapping[str, str], classes: Sequence[str]) -> Dataset:
    """The dataset of the options band1, band2, band3 or group, labels, class_column and training_areas.

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
    for name in split(options["labels"]):
        labels = find_vector(name)
        grids = [block.grid for block in blocks]
        members = group_areas(labels, read_areas(labels, grids), notes)
        found = _classes_of(labels, sorted(members), classes, options["class_column"] or None, notes)
        for category, class_name in found.items():
            names.setdefault(class_name, []).append(f"<{labels}> category {category}")
            if class_name in classes:
                areas = tuple(members[category])
                objects.append(LabelledObject(class_id=classes.index(class_name) + 1, areas=areas))
    where = f"on the maps{' in the training areas' if options['training_areas'] else ''}, in the region"
    if not objects and not names:
        raise DatasetError(
            f"No area of {options['labels']} lies {where}. Look where the labels are, and set the region to "
            f"the maps: g.region raster={scenes[0][0]}"
        )
    check_labels(names, classes, "Areas of a class")
    images = place_objects(blocks, objects, len(classes), notes)
    seen = {
        name: [image.path for image in images if image.instance_counts[index]]
        for index, name in enumerate(classes)
    }
    check_labels(
        {name: paths for name, paths in seen.items() if paths}, classes, f"Areas {where}, of a class"
    )
    return Dataset(classes=classes, images=tuple(images), notes=tuple(dict.fromkeys(notes)))


def make_blocks(scenes: Sequence[tuple[Band, ...]], extent: Grid, training_areas: str | None) -> list[Block]:
    """The cells of each scene in `extent`; with a map of training areas one block for each of its areas.

    Raises:
        AnnError: a scene outside of the extent, no such map, or no area of it on any scene.
    """
    grids = [cells_inside(bands[0], extent) for bands in scenes]
    if training_areas is None:
        sources = common_ground(grids)
        return [
            Block(name=str(bands[0]), source=str(scenes[source][0]), bands=bands, grid=grid)
            for bands, grid, source in zip(scenes, grids, sources, strict=True)
        ]
    name = find_vector(training_areas)
    blocks = []
    for number, area in enumerate(read_areas(name, grids), start=1):
        for bands, grid in zip(scenes, grids, strict=True):
            part = grid.limited_to(area.extent) if area.categories else None
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
    first = list(range(len(grids)))
    for index, grid in enumerate(grids):
        joined = {first[other] for other in range(index) if grid.overlaps(grids[other])} | {index}
        first = [min(joined) if source in joined else source for source in first]
    return first


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
    scattered = [category for category, parts in members.items() if _far_apart(parts)]
    if scattered:
        notes.append(
            f"<{name}> has areas far apart that share a category, each time taken for one object: categories "
            f"{name_some([str(category) for category in scattered])}. If they are several objects, give each "
            "its own category with v.category."
        )
    return members


def place_objects(
    blocks: Sequence[Block], objects: Sequence[LabelledObject], class_count: int, notes: list[str]
) -> list[LabelledImage]:
    """An image for each block, with the objects of which a cell's centre is inside."""
    boxes = np.array([_box(one.areas) for one in objects]).reshape(-1, 4)  # west, south, east, north
    placed, missed = np.zeros(len(objects), bool), np.zeros(len(objects), bool)
    images = []
    for block in blocks:
        grid = block.grid
        frame = whole(grid.rows, grid.columns)
        shapes, class_ids = [], []
        near = (boxes[:, :2] < (grid.east, grid.north)) & (boxes[:, 2:] > (grid.west, grid.south))
        inside = (boxes[:, :2] >= (grid.west, grid.south)) & (boxes[:, 2:] <= (grid.east, grid.north))
        for index in np.flatnonzero(near.all(axis=1)):
            shape = Polygons.from_parts(tuple(area.pixel_rings(grid) for area in objects[index].areas))
            if covers_pixel(shape, frame, block.ground):
                placed[index] = True
                shapes.append(shape)
                class_ids.append(objects[index].class_id)
            elif block.ground is None and inside[index].all():
                missed[index] = True
        images.append(_image(block, shapes, class_ids, class_count))
    if (missed & ~placed).any():
        notes.append(
            f"{(missed & ~placed).sum()} area(s) in which no cell has its centre were ignored: they are "
            "smaller than cells."
        )
    return images


def _image(
    block: Block, shapes: Sequence[Polygons], class_ids: Sequence[int], class_count: int
) -> LabelledImage:
    grid = block.grid
    header = ImageHeader(
        path=block.name,
        height=grid.rows,
        width=grid.columns,
        bands=len(block.bands),
        dtype=str(common_dtype(block.bands)),
        pixel_size=grid.column_size,
    )
    pixels = MapPixels(bands=block.bands, grid=grid, ground=block.ground)
    image = labelled_image(header, shapes, class_ids, class_count, name=block.name, pixels=pixels)
    return replace(image, source=block.source, extent=(grid.west, grid.south, grid.east, grid.north))


def _classes_of(
    name: str, categories: Sequence[int], classes: Sequence[str], class_column: str | None, notes: list[str]
) -> dict[int, str]:
    """The class of each category.

    Raises:
        DatasetError: the column isn't there or unclear, or a category has no class.
    """
    if not categories:
        return {}
    key, columns = read_columns(name)
    if key != class_column:
        columns.pop(key, None)
    fields = {column: [rows.get(cat) for cat in categories] for column, rows in columns.items()}
    found, remarks = class_names(f"<{name}>", fields, len(categories), classes, class_column)
    notes.extend(remarks)
    unnamed = [str(category) for category, text in zip(categories, found, strict=True) if not text]
    if unnamed:
        raise DatasetError(
            f"{len(unnamed)} object(s) of <{name}> have no class: categories {name_some(unnamed)}. Fill the "
            "column (v.db.update), add rows that are missing (INSERT INTO with db.execute), or delete the "
            "areas (v.edit tool=delete)"
        )
    return dict(zip(categories, found.tolist(), strict=True))


def _box(areas: Sequence[Area]) -> tuple[float, float, float, float]:
    outlines = np.concatenate([area.rings[0] for area in areas])
    return (*outlines.min(axis=0).tolist(), *outlines.max(axis=0).tolist())


def _far_apart(areas: Sequence[Area]) -> bool:
    def size(parts: Sequence[Area]) -> float:
        west, south, east, north = _box(parts)
        return (east - west) * (north - south)

    return len(areas) > 1 and size(areas) > FAR_APART * sum(size([area]) for area in areas)
