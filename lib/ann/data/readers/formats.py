"""Which format a training dataset has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ann.data.dataset import Dataset, check_classes, check_found
from ann.data.ground import join_ground
from ann.data.pixels.rasters import find_rasters
from ann.data.readers.class_column import AS_THEY_ARE, ClassValues
from ann.data.readers.coco import read_coco
from ann.data.readers.coco_files import find_coco
from ann.data.readers.directories import has_masks, read_directories
from ann.data.readers.shards import is_shards, read_shards
from ann.data.readers.vectors import find_vectors, read_vectors
from ann.data.samples.values import check_headers
from ann.data.text import join_names
from ann.errors import DatasetError

FORMATS = """
- directories, one per image, with the image and a mask <image>-<class>-<number>.png for each object
- a COCO instance JSON (images, annotations, categories) with the images beside it or in images/
- georeferenced images with a vector file (.gpkg, .geojson, .shp) of the same name beside each, or one for
all
- Parquet shards as written with shards= (a directory or a URI)"""


def open_dataset(
    path: str | Path,
    classes: Sequence[str],
    class_column: str | None = None,
    class_values: ClassValues = AS_THEY_ARE,
    *,
    skip_damaged: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Open labelled images in any of the formats that are understood, recognised by their files.

    classes: class names, in the order of their ids; class_column: for vector files, see `read_vectors`;
    class_values: what the values of that column, or the names of COCO categories, mean; skip_damaged: for
    shards, see `read_shards`; report: told how many images of how many have been looked at.

    Images that show the same ground get the same `source`.

    Raises:
        DatasetError: the path isn't there, the format is none or more than one of these, or the data has a
            fault.
    """
    classes = check_classes(classes)
    if is_shards(path):
        _refuse_column(class_column, path, "shards name the classes")
        _refuse_values(class_values, path, "shards name the classes")
        return check_headers(read_shards(path, classes, skip_damaged=skip_damaged))
    dataset = _read(Path(path), classes, class_column, class_values)
    return check_headers(join_ground(dataset, report))


def _read(
    path: Path, classes: tuple[str, ...], class_column: str | None, class_values: ClassValues
) -> Dataset:
    if not path.exists():
        raise DatasetError(f"Training dataset {path} does not exist.")
    coco, notes = find_coco(path)
    if path.is_file() and not coco:
        raise DatasetError(f"{path} is no COCO instance file. A dataset is one of:{FORMATS}")
    found = []
    if coco:
        found.append(f"COCO ({coco[0].path})")
    vectors = find_vectors(path)
    if vectors:
        found.append(f"vector files ({vectors[0]})")
    mask = has_masks(path, classes)
    if mask:
        found.append(f"mask files ({mask})")
    if len(found) > 1:
        raise DatasetError(
            f"{path} mixes {' and '.join(found)}. Move apart what isn't meant; a dataset is one of:{FORMATS}"
        )
    if coco:
        _refuse_column(class_column, path, "a COCO file names the categories")
        dataset = read_coco(path, classes, coco, class_values)
    elif vectors:
        dataset = read_vectors(path, classes, class_column, class_values)
    else:
        check_found(find_rasters(path), path)
        if not mask:
            raise DatasetError(
                f"No labels of {join_names(classes)} found in {path}. {' '.join(notes)} A dataset is one "
                f"of:{FORMATS}"
            )
        _refuse_column(class_column, path, "the names of mask files say the class")
        _refuse_values(class_values, path, "the names of mask files say the class")
        dataset = read_directories(path, classes)
    return replace(dataset, notes=(*dataset.notes, *notes))


def _refuse_column(class_column: str | None, path: str | Path, instead: str) -> None:
    if class_column:
        raise DatasetError(
            f"class_column={class_column} is for vector files, but in {path} {instead}. Leave it out."
        )


def _refuse_values(class_values: ClassValues, path: str | Path, instead: str) -> None:
    if class_values.by_value:
        raise DatasetError(
            f"class_values= is for vector files and COCO categories, but in {path} {instead}. Leave it out."
        )
