"""Georeferenced images with their objects as polygons of a vector file (GeoPackage, GeoJSON, shapefile).

A vector file of the same name beside an image belongs to it; one that is called otherwise belongs to all
images of its directory that have none of their own. The class stands in a column. Polygons are brought to
the image's coordinate system and kept as outlines in its pixels; nothing is drawn before a window is read,
so an image may be of any size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError  # what PROJ reports has no public class
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_coordinates
from rasterio.warp import transform_bounds

from ann.data.dataset import (
    Dataset,
    check_bands,
    check_classes,
    check_found,
    check_labels,
    name_some,
)
from ann.data.folders import find_files
from ann.data.longitudes import TURNS, eastward, unwrap
from ann.data.outlines.objects import Label, Sieve, check_drawn, far_apart, far_apart_note
from ann.data.outlines.shapes import Polygons
from ann.data.pixels.rasters import find_rasters, open_image, read_header
from ann.data.pixels.windows import whole
from ann.data.readers.class_column import AS_THEY_ARE, AttributeTable, ClassValues, class_names
from ann.data.readers.labelled_image import labelled_image
from ann.data.text import plain
from ann.errors import DatasetError

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".shp")
WORLD_FILES = {  # of GDAL, beside <name>.wld
    ".png": (".pgw", ".pngw"),
    ".jpg": (".jgw", ".jpgw"),
    ".jpeg": (".jgw", ".jpegw"),
    ".tif": (".tfw", ".tifw"),
    ".tiff": (".tfw", ".tiffw"),
}
Bounds = tuple[float, float, float, float]  # west, south, east, north


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorFile:
    """All polygons of one vector file: shapely geometries (N,) object, feature ids (N,), their attributes,
    coordinate system.
    """

    path: str
    geometries: np.ndarray
    numbers: np.ndarray
    attributes: AttributeTable
    crs: CRS | None
    notes: tuple[str, ...]

    def place(self, index: int) -> str:
        """What a person finds a polygon by."""
        return f"fid {self.numbers[index]} of {self.path}"

    def near(self, bounds: Bounds) -> np.ndarray:
        """Indices, ascending, of the polygons in or near bounds, map units or degrees, east above west."""
        west, south, east, north = bounds
        margin = 0.01 * max(east - west, north - south)  # outlines bend when they are reprojected
        turns = TURNS if self.crs is not None and self.crs.is_geographic else (0.0,)
        boxes = [
            shapely.box(west - margin + turn, south - margin, east + margin + turn, north + margin)
            for turn in turns
        ]
        return np.unique(np.concatenate([self._tree.query(box) for box in boxes]))

    @cached_property
    def _tree(self):
        return shapely.STRtree(self.geometries)


def find_vectors(path: str | Path) -> tuple[Path, ...]:
    """All vector files at any depth below a directory, sorted."""
    return tuple(find_files(path, VECTOR_SUFFIXES))


def read_vectors(
    path: str | Path,
    classes: Sequence[str],
    class_column: str | None = None,
    class_values: ClassValues = AS_THEY_ARE,
) -> Dataset:
    """Open georeferenced images with vector files. Memory is that of the polygons.

    class_column: the column with the class; None: the one that `class_names` finds; class_values: what its
    values mean.

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
    vectors = {vector: read_vector_file(vector) for vector in dict.fromkeys(pairs.values())}
    notes = [note for vector in vectors.values() for note in vector.notes]
    class_ids = _read_classes(vectors, classes, class_column, class_values, notes)
    sieve = Sieve()
    touched: dict[Path, set[int]] = {vector: set() for vector in vectors}
    images = []
    for file, header in zip(files, headers, strict=True):
        vector = vectors[pairs[file]]
        labels = []
        for index, shape in _place(vector, file, notes):
            touched[pairs[file]].add(index)
            class_id = int(class_ids[pairs[file]][index])
            labels.append(Label(shape=shape, class_id=class_id, place=vector.place(index)))
        kept = sieve.keep(labels, whole(header.height, header.width))
        name = file.relative_to(path).as_posix()
        shapes, ids = [label.shape for label in kept], [label.class_id for label in kept]
        images.append(labelled_image(header, shapes, ids, len(classes), name=name))
    for key, vector in vectors.items():
        lost = [index for index in range(len(vector.numbers)) if index not in touched[key]]
        sieve.outside.update(dict.fromkeys(vector.place(index) for index in lost))
    _check_overlap(vectors, touched, pairs)
    ignored = sieve.notes()
    check_drawn(images, classes, ignored, f"polygons on the images of {path}")
    return Dataset(classes=classes, images=tuple(images), notes=(*dict.fromkeys(notes), *ignored))


def read_vector_file(path: str | Path) -> VectorFile:
    """Read the polygons of a vector file; invalid ones are repaired.

    Raises:
        DatasetError: it can't be read, or holds no or several layers of polygons.
    """
    layer = _polygon_layer(path)
    try:
        meta, numbers, wkb, values = pyogrio.raw.read(path, layer=layer, return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DatasetError(f"Vector file {path} can't be read ({error}).") from error
    notes = []
    geometries = shapely.force_2d(shapely.from_wkb(wkb, on_invalid="ignore"))
    invalid = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    if invalid.any():
        geometries[invalid] = shapely.make_valid(geometries[invalid])
        notes.append(
            f"{invalid.sum()} invalid polygon(s) of {path} were repaired: fid {name_some(numbers[invalid])}."
        )
    usable = np.array([bool(_polygons(geometry)) for geometry in geometries], dtype=bool)
    if not usable.all():
        notes.append(
            f"{(~usable).sum()} feature(s) of {path} that are no polygon were ignored: "
            f"fid {name_some(numbers[~usable])}."
        )
    geometries, numbers = geometries[usable], numbers[usable]
    crs = _known(CRS.from_user_input(meta["crs"])) if meta["crs"] else None
    if crs is not None and crs.is_geographic:
        geometries = unwrap(geometries)
    several = np.flatnonzero(shapely.get_num_geometries(geometries) > 1)
    scattered = [
        index for index in several if far_apart(shapely.bounds(_polygons(geometries[index])).tolist())
    ]
    if scattered:
        names = [f"fid {numbers[index]}" for index in scattered]
        way_out = "make single polygons of them, e.g. ogr2ogr -explodecollections"
        notes.append(far_apart_note(str(path), "polygons", names, way_out))
    columns = {str(name): column[usable] for name, column in zip(meta["fields"], values, strict=True)}
    return VectorFile(
        path=str(path),
        geometries=geometries,
        numbers=numbers,
        attributes=AttributeTable(source=str(path), columns=columns, count=len(geometries)),
        crs=crs,
        notes=tuple(notes),
    )


def _known(crs: CRS | None) -> CRS | None:
    """A coordinate system; None where it only says that none is known, as local and undefined ones do."""
    if not crs or not (crs.is_geographic or crs.is_projected):
        return None
    return None if re.match(r'\w+\["undefined\b', crs.to_wkt(), re.IGNORECASE) else crs


def _read_classes(
    vectors: dict[Path, VectorFile],
    classes: tuple[str, ...],
    class_column: str | None,
    class_values: ClassValues,
    notes: list[str],
) -> dict[Path, np.ndarray]:
    """Class ids of the polygons of each file.

    Raises:
        DatasetError: a polygon without class, or classes that don't match `classes`.
    """
    tables = [vector.attributes for vector in vectors.values()]
    found, remarks = class_names(tables, classes, class_column, class_values)
    notes += remarks
    labels: dict[str, list[str]] = {}
    for vector, names in zip(vectors.values(), found, strict=True):
        unnamed = vector.numbers[names == ""]
        if len(unnamed):
            raise DatasetError(
                f"{len(unnamed)} polygon(s) of {vector.path} have no class: fid {name_some(unnamed)}. Fill "
                f"the column, give them a class with class_values=*:{classes[0]}, or delete them."
            )
        for name in np.unique(names):
            labels.setdefault(str(name), []).append(vector.path)
    check_labels(labels, classes, "Polygons of a class", class_values=True)
    ids = {name: number for number, name in enumerate(classes, start=1)}
    return {
        key: np.array([ids[name] for name in names], dtype=np.int32)
        for key, names in zip(vectors, found, strict=True)
    }


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
            f"beside each ({', '.join(VECTOR_SUFFIXES)}), an empty one where there are no objects, or one "
            "for all."
        )
    return pairs


def _place_and_name(file: Path) -> tuple[Path, str]:
    """What an image and the vector file that belongs to it have in common."""
    return file.parent, plain(file.stem)


def _polygon_layer(vector: str | Path) -> str:
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


def _place(vector: VectorFile, file: Path, notes: list[str]) -> list[tuple[int, Polygons]]:
    """The polygons that touch an image, with their index, in its pixels; a missing system is noted."""
    with open_image(file) as source:
        transform, crs, height, width = source.transform, _known(source.crs), source.height, source.width
    if transform.is_identity:
        suffixes = (*WORLD_FILES[file.suffix.lower()], ".wld")
        raise DatasetError(
            f"Image {file} isn't georeferenced, so the polygons of {vector.path} can't be placed on it. Use "
            f"a GeoTIFF, or add a world file: {', '.join(file.stem + suffix for suffix in suffixes)}."
        )
    bounds = _bounds(transform, height, width)
    if crs and vector.crs and crs != vector.crs:
        try:
            near = vector.near(eastward(transform_bounds(crs, vector.crs, *bounds)))
            geometries = _reproject(vector.geometries[near], vector.crs, crs)
        except (RasterioError, CPLE_BaseError) as error:
            raise DatasetError(
                f"Polygons of {vector.path} can't be brought to the coordinate system of {file} ({error}). "
                "Reproject the vector file."
            ) from error
        if crs.is_geographic:
            geometries = unwrap(geometries)
    else:
        near = vector.near(bounds)
        geometries = vector.geometries[near]
        if not (crs and vector.crs):
            notes.append(
                f"{vector.path if crs else file} has no coordinate system; it is taken for that of "
                f"{file if crs else vector.path}."
            )
    if crs is not None and crs.is_geographic:
        geometries = np.concatenate([_moved(geometries, turn) for turn in TURNS])
        near = np.tile(near, len(TURNS))
    return [
        (int(near[index]), shape) for index, shape in place_polygons(geometries, transform, height, width)
    ]


def _bounds(transform: Affine, height: int, width: int) -> Bounds:
    matrix = np.array(transform).reshape(3, 3)
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ matrix[:2, :2].T + matrix[:2, 2]
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def _moved(geometries: np.ndarray, east: float) -> np.ndarray:
    return (
        shapely.transform(geometries, lambda points: points + np.array([east, 0.0])) if east else geometries
    )


def place_polygons(
    geometries: np.ndarray, transform: Affine, height: int, width: int
) -> Iterator[tuple[int, Polygons]]:
    """The polygons that touch an image, as outlines in its pixels, with their index.

    geometries: (N,) shapely polygons in the image's coordinate system; transform: from pixels (column,
    row) to it.
    """
    inverse = np.array(~transform).reshape(3, 3)
    geometries = shapely.transform(geometries, lambda points: points @ inverse[:2, :2].T + inverse[:2, 2])
    frame = shapely.box(0, 0, width, height)
    for index in np.flatnonzero(shapely.intersects(geometries, frame)):
        shape = _clip(geometries[index], frame)
        if shape is not None:
            yield int(index), shape


def _reproject(geometries: np.ndarray, source: CRS, target: CRS) -> np.ndarray:
    return shapely.transform(
        geometries,
        lambda points: np.column_stack(transform_coordinates(source, target, points[:, 0], points[:, 1])),
    )


def _clip(geometry: object, frame: object) -> Polygons | None:
    """A geometry in pixels, cut at the image; box and area are those before the cut."""
    whole_shape = _as_shape(_polygons(geometry))
    if shapely.contains_properly(frame, geometry):
        return whole_shape
    parts = _polygons(shapely.intersection(shapely.make_valid(geometry), frame))
    if not parts:
        return None
    return Polygons(box=whole_shape.box, area=whole_shape.area, parts=_as_shape(parts).parts)


def _polygons(geometry: object) -> list:
    """The polygons inside of a geometry, whatever holds them; those without area are left out."""
    if geometry is None:
        return []
    parts = shapely.get_parts(shapely.get_parts([geometry]))  # a collection may hold multi-polygons
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 0]


def _as_shape(polygons: Sequence) -> Polygons:
    parts = tuple(
        tuple(shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors))
        for polygon in polygons
    )
    return Polygons.from_parts(parts)


def _check_overlap(
    vectors: dict[Path, VectorFile], touched: dict[Path, set[int]], pairs: dict[Path, Path]
) -> None:
    """Raise DatasetError where no polygon touches any image; it says where both lie."""
    if any(touched.values()):
        return
    file, vector = next(iter(pairs.items()))
    with open_image(file) as source:
        image_bounds = _bounds(source.transform, source.height, source.width)
        image_crs = source.crs
    raise DatasetError(
        f"No polygon lies on an image ({name_some([str(file) for file in pairs])}). Check the coordinate "
        f"systems of images and vector files: {_describe(file, image_bounds, image_crs)}; "
        f"{_describe(vector, shapely.total_bounds(vectors[vector].geometries), vectors[vector].crs)}."
    )


def _describe(path: Path, bounds: Sequence[float], crs: CRS | None) -> str:
    west, south, east, north = (f"{value:.8g}" for value in bounds)
    system = crs.to_string() if crs else "no coordinate system"
    return f"{path} lies at {west} to {east} east and {south} to {north} north ({system[:60]})"
