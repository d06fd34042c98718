"""Georeferenced images with their objects as polygons of a vector file (GeoPackage, GeoJSON, shapefile).

A vector file of the same name beside an image belongs to it; one that is called otherwise belongs to all
images of its directory that have none of their own. The class stands in a column. Polygons are brought to
the image's coordinate system and kept as outlines in its pixels; nothing is drawn before a window is read,
so an image may be of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError  # what PROJ reports has no public class
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_coordinates
from rasterio.warp import transform_bounds

from ann.data.dataset import (
    Dataset,
    LabelledImage,
    check_bands,
    check_classes,
    check_found,
    check_labels,
    name_some,
)
from ann.data.folders import find_files
from ann.data.outlines.shapes import Polygons
from ann.data.pixels.rasters import find_rasters, open_image, read_header
from ann.data.readers.class_column import class_names
from ann.data.readers.labelled_image import labelled_image
from ann.data.text import plain
from ann.errors import DatasetError

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".shp")


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorLabels:
    """All polygons of one vector file: shapely geometries (N,) object, class names (N,), coordinate
    system.
    """

    path: str
    geometries: np.ndarray
    class_names: np.ndarray
    crs: CRS | None
    notes: tuple[str, ...]

    def near(self, bounds: tuple[float, float, float, float]) -> np.ndarray:
        """Indices, ascending, of the polygons in or near (west, south, east, north), map units."""
        import shapely

        west, south, east, north = bounds
        margin = 0.01 * max(east - west, north - south)  # outlines bend when they are reprojected
        box = shapely.box(west - margin, south - margin, east + margin, north + margin)
        return np.sort(self._tree.query(box))

    @cached_property
    def _tree(self):
        import shapely

        return shapely.STRtree(self.geometries)


def find_vectors(path: str | Path) -> tuple[Path, ...]:
    """All vector files at any depth below a directory, sorted."""
    return tuple(find_files(path, VECTOR_SUFFIXES))


def read_vectors(path: str | Path, classes: Sequence[str], class_column: str | None = None) -> Dataset:
    """Open georeferenced images with vector files. Memory is that of the polygons.

    class_column: the column with the class; None: the one that `class_names` finds.

    Raises:
        DatasetError: an image without vector file or georeference, a vector file without polygons, an unclear
            class column, classes that don't match `classes`, or a file that can't be read.
    """
    classes = check_classes(classes)
    files = find_rasters(path)
    check_found(files, path)
    pairs = _pair(files, find_vectors(path))
    headers = [read_header(file) for file in files]
    check_bands(headers)
    labels = {vector: read_labels(vector, classes, class_column) for vector in dict.fromkeys(pairs.values())}
    names: dict[str, list[str]] = {}
    for found in labels.values():
        for name in np.unique(found.class_names):
            names.setdefault(str(name), []).append(found.path)
    check_labels(names, classes, "Polygons of a class")
    notes = [note for found in labels.values() for note in found.notes]
    images = []
    for file, header in zip(files, headers, strict=True):
        found = labels[pairs[file]]
        shapes, class_ids, remark = _place(found, file, classes)
        if remark and remark not in notes:
            notes.append(remark)
        name = file.relative_to(path).as_posix()
        images.append(labelled_image(header, shapes, class_ids, len(classes), name=name))
    _check_overlap(images, classes)
    return Dataset(classes=classes, images=tuple(images), notes=tuple(notes))


def read_labels(vector: str | Path, classes: Sequence[str], class_column: str | None) -> VectorLabels:
    """Read the polygons of a vector file and their classes; invalid ones are repaired.

    Raises:
        DatasetError: it can't be read, holds no or several layers of polygons, or the class column is
            unclear.
    """
    import pyogrio
    import shapely

    layer = _polygon_layer(vector)
    try:
        meta, numbers, wkb, columns = pyogrio.raw.read(vector, layer=layer, return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DatasetError(f"Vector file {vector} can't be read ({error}).") from error
    fields = dict(zip((str(name) for name in meta["fields"]), columns, strict=True))
    names, notes = class_names(str(vector), fields, len(wkb), classes, class_column)

    geometries = shapely.force_2d(shapely.from_wkb(wkb, on_invalid="ignore"))
    invalid = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    if invalid.any():
        geometries[invalid] = shapely.make_valid(geometries[invalid])
        notes.append(
            f"{invalid.sum()} invalid polygon(s) of {vector} were repaired: fid "
            f"{name_some(numbers[invalid])}."
        )
    usable = np.array([bool(_polygons(geometry)) for geometry in geometries], dtype=bool)
    if not usable.all():
        notes.append(
            f"{(~usable).sum()} feature(s) of {vector} that are no polygon were ignored: "
            f"fid {name_some(numbers[~usable])}."
        )
    unnamed = usable & (names == "")
    if unnamed.any():
        raise DatasetError(
            f"{unnamed.sum()} polygon(s) of {vector} have no class: fid {name_some(numbers[unnamed])}. Fill "
            "the column or delete them."
        )
    crs = CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    return VectorLabels(
        path=str(vector),
        geometries=geometries[usable],
        class_names=names[usable],
        crs=crs,
        notes=tuple(notes),
    )


def _pair(files: Sequence[Path], vectors: Sequence[Path]) -> dict[Path, Path]:
    """The vector file of each image."""
    images = {_place_and_name(file) for file in files}
    own: dict[tuple[Path, str], list[Path]] = {}
    shared: dict[Path, list[Path]] = {}
    for vector in vectors:
        key = _place_and_name(vector)
        if key in images:
            own.setdefault(key, []).append(vector)
        else:
            shared.setdefault(vector.parent, []).append(vector)
    pairs, lost = {}, []
    for file in files:
        choices = own.get(_place_and_name(file)) or shared.get(file.parent, [])
        if len(choices) > 1:
            raise DatasetError(
                f"Several vector files could belong to {file}: {name_some(choices)}. Keep one, or call it as "
                "the image."
            )
        if choices:
            pairs[file] = choices[0]
        else:
            lost.append(str(file))
    if lost:
        raise DatasetError(
            f"{len(lost)} image(s) without a vector file: {name_some(lost)}. Put one of the same name "
            "beside each "
            f"({', '.join(VECTOR_SUFFIXES)}), an empty one where there are no objects, or one for all."
        )
    return pairs


def _place_and_name(file: Path) -> tuple[Path, str]:
    """What an image and the vector file that belongs to it have in common."""
    return file.parent, plain(file.stem)


def _polygon_layer(vector: str | Path) -> str:
    import pyogrio

    try:
        layers = pyogrio.list_layers(vector)
    except pyogrio.errors.DataSourceError as error:
        raise DatasetError(f"Vector file {vector} can't be read ({error}). It may be damaged.") from error
    found = [
        name
        for name, kind in layers
        if kind and ("Polygon" in kind or kind in ("Unknown", "GeometryCollection"))
    ]
    if len(found) != 1:
        listed = ", ".join(f"{name} ({kind or 'table'})" for name, kind in layers) or "none"
        raise DatasetError(
            f"Expected one layer of polygons in {vector}, found {listed}. Keep the labels alone."
        )
    return found[0]


def _place(
    labels: VectorLabels, file: Path, classes: Sequence[str]
) -> tuple[list[Polygons], list[int], str | None]:
    """The polygons that touch an image, in its pixels, their class ids, and a note on a missing system."""
    with open_image(file) as source:
        transform, crs, height, width = source.transform, source.crs, source.height, source.width
    if transform.is_identity:
        raise DatasetError(
            f"Image {file} isn't georeferenced, so the polygons of {labels.path} can't be placed on it. Use "
            "a GeoTIFF or add a world file."
        )
    matrix = np.array(transform).reshape(3, 3)
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ matrix[:2, :2].T + matrix[:2, 2]
    bounds = (*corners.min(axis=0), *corners.max(axis=0))
    remark = None
    if crs and labels.crs and crs != labels.crs:
        try:
            near = labels.near(transform_bounds(crs, labels.crs, *bounds))
            geometries = _reproject(labels.geometries[near], labels.crs, crs)
        except (RasterioError, CPLE_BaseError) as error:
            raise DatasetError(
                f"Polygons of {labels.path} can't be brought to the coordinate system of {file} ({error}). "
                "Reproject the vector file."
            ) from error
    else:
        near = labels.near(bounds)
        geometries = labels.geometries[near]
        if not (crs and labels.crs):
            remark = (
                f"{labels.path if crs else file} has no coordinate system; it is taken for that of "
                f"{file if crs else labels.path}."
            )
    shapes, class_ids = [], []
    for index, shape in place_polygons(geometries, transform, height, width):
        shapes.append(shape)
        class_ids.append(classes.index(labels.class_names[near[index]]) + 1)
    return shapes, class_ids, remark


def place_polygons(
    geometries: np.ndarray, transform: Affine, height: int, width: int
) -> Iterator[tuple[int, Polygons]]:
    """The polygons that touch an image, as outlines in its pixels, with their index.

    geometries: (N,) shapely polygons in the image's coordinate system; transform: from pixels (column,
    row) to it.
    """
    import shapely

    inverse = np.array(~transform).reshape(3, 3)
    geometries = shapely.transform(geometries, lambda points: points @ inverse[:2, :2].T + inverse[:2, 2])
    frame = shapely.box(0, 0, width, height)
    for index in np.flatnonzero(shapely.intersects(geometries, frame)):
        shape = _clip(geometries[index], frame)
        if shape is not None:
            yield int(index), shape


def _reproject(geometries: np.ndarray, source: CRS, target: CRS) -> np.ndarray:
    import shapely

    return shapely.transform(
        geometries,
        lambda points: np.column_stack(transform_coordinates(source, target, points[:, 0], points[:, 1])),
    )


def _clip(geometry: object, frame: object) -> Polygons | None:
    """A geometry in pixels, cut at the image; box and area are those before the cut."""
    import shapely

    whole = _as_shape(_polygons(geometry))
    if shapely.contains_properly(frame, geometry):
        return whole
    parts = _polygons(shapely.intersection(shapely.make_valid(geometry), frame))
    if not parts:
        return None
    return Polygons(box=whole.box, area=whole.area, parts=_as_shape(parts).parts)


def _polygons(geometry: object) -> list:
    """The polygons inside of a geometry, whatever holds them; those without area are left out."""
    import shapely

    if geometry is None:
        return []
    parts = shapely.get_parts(shapely.get_parts([geometry]))  # a collection may hold multi-polygons
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 0]


def _as_shape(polygons: Sequence) -> Polygons:
    import shapely

    parts = tuple(
        tuple(shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors))
        for polygon in polygons
    )
    return Polygons.from_parts(parts)


def _check_overlap(images: Sequence[LabelledImage], classes: Sequence[str]) -> None:
    """Raise DatasetError where no polygon lies on any image, or a class has none that does."""
    found = {
        name: [image.path for image in images if image.instance_counts[index]]
        for index, name in enumerate(classes)
    }
    if not any(found.values()):
        raise DatasetError(
            f"No polygon lies on an image ({name_some([image.path for image in images])}). Check the "
            "coordinate systems of images and vector files."
        )
    check_labels({name: files for name, files in found.items() if files}, classes, "Polygons of a class")
