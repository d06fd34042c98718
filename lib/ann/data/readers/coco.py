"""COCO instance files: a JSON of images, categories and annotations, with polygons or run-length encoded
masks.

Given is the JSON file, or a directory with one or several of them (or with a folder `annotations`, `train`,
`valid` or `test` of them), the images beside it or in `images`. Files with the word `val` in their name, or
in that of their folder, are the validation part, those with `test` stay out. Crowd annotations become
regions that training ignores.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ann.data.dataset import (
    Dataset,
    LabelledImage,
    check_bands,
    check_classes,
    check_found,
    check_labels,
    name_some,
)
from ann.data.outlines.rle import decode_runs, mask_from_runs
from ann.data.outlines.shapes import PackedMask, Polygons, Shape
from ann.data.pixels.rasters import ImageHeader, read_header
from ann.data.readers.coco_files import CocoFile, NamedFiles, find_coco
from ann.data.readers.labelled_image import labelled_image
from ann.data.text import plain
from ann.errors import DatasetError


@dataclass(eq=False)
class _Labels:
    """What is gathered while annotations are read."""

    by_class: dict[str, list[str]] = field(default_factory=dict)
    without_outline: list[str] = field(default_factory=list)


def read_coco(path: str | Path, classes: Sequence[str], found: Sequence[CocoFile] | None = None) -> Dataset:
    """Open a COCO dataset; outlines stay polygons or packed masks in memory.

    found: the files that `find_coco` found, to spare reading the files twice.

    Raises:
        DatasetError: no COCO file; ids or images given twice; a missing image or category; outlines or images
            that can't be read or don't fit together; classes that don't match `classes`.
    """
    classes = check_classes(classes)
    files = find_coco(path)[0] if found is None else tuple(found)
    if not files:
        raise DatasetError(f"No COCO file (JSON with images, annotations and categories) in {path}.")
    parts: dict[str, list[CocoFile]] = {"train": [], "val": [], "test": []}
    for file in files:
        parts[file.part].append(file)
    used = [*parts["train"], *parts["val"]] or files
    root = Path(path) if Path(path).is_dir() else Path(path).parent

    labels = _Labels()
    opened = {file.path: _read_file(file, classes, root, labels) for file in used}
    check_labels(labels.by_class, classes, f"Categories with annotations in {root}")
    everything = [image for images in opened.values() for image in images]
    check_found(everything, path)
    check_bands(everything)
    twice = _twice(image.path for image in everything)
    if twice:
        raise DatasetError(f"Images listed by more than one COCO file: {name_some(twice)}. Keep each in one.")

    notes = []
    if labels.without_outline:
        notes.append(
            f"{len(labels.without_outline)} annotation(s) without an outline were ignored: "
            f"{name_some(labels.without_outline)}."
        )
    if parts["test"] and len(used) < len(files):
        test = [str(file.path.relative_to(root)) for file in parts["test"]]
        notes.append(f"Left out as test data: {name_some(test)}.")
    validation = [file.path for file in parts["val"]] if parts["train"] else []
    return Dataset(
        classes=classes,
        images=tuple(image for file in used if file.path not in validation for image in opened[file.path]),
        validation=tuple(image for file in validation for image in opened[file]),
        notes=tuple(notes),
    )


def _read_file(file: CocoFile, classes: tuple[str, ...], root: Path, labels: _Labels) -> list[LabelledImage]:
    categories, images = _check_tables(file)
    paths = _locate_images(file, images, root)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        headers = dict(zip(paths, workers.map(read_header, paths.values()), strict=True))
    for number, header in headers.items():
        stated = (images[number].get("height"), images[number].get("width"))
        if None not in stated and stated != (header.height, header.width):
            raise DatasetError(
                f"{file.path} says {header.path} has {stated[0]} x {stated[1]} pixels (height x width), it "
                "has "
                f"{header.height} x {header.width}. Use the images that were labelled, at their full size."
            )
    shapes: dict[Any, list[Shape]] = {number: [] for number in images}
    class_ids: dict[Any, list[int]] = {number: [] for number in images}
    for annotation in file.content["annotations"]:
        number = annotation["image_id"]
        place = f"annotation {annotation.get('id')} of {file.path.name}"
        shape = _read_outline(annotation, headers[number], place)
        if shape is None:
            labels.without_outline.append(place)
            continue
        name = categories[annotation["category_id"]]
        crowd = bool(annotation.get("iscrowd"))
        if not crowd or name not in classes:
            labels.by_class.setdefault(name, []).append(place)
        if name in classes:
            class_id = classes.index(name) + 1
            shapes[number].append(shape)
            class_ids[number].append(-class_id if crowd else class_id)
    return [
        labelled_image(
            headers[number], shapes[number], class_ids[number], len(classes), name=image["file_name"]
        )
        for number, image in images.items()
    ]


def _check_tables(file: CocoFile) -> tuple[dict[Any, str], dict[Any, dict[str, Any]]]:
    """Categories {id: name} and images {id: entry}, after a check that all ids fit together."""
    content = file.content
    for table, keys in (
        ("categories", ("id", "name")),
        ("images", ("id", "file_name")),
        ("annotations", ("image_id", "category_id")),
    ):
        rows = content.get(table)
        if not isinstance(rows, list) or any(
            not isinstance(row, dict) or any(key not in row for key in keys) for row in rows
        ):
            raise DatasetError(
                f"{file.path} is no complete COCO file: every entry of {table!r} needs {' and '.join(keys)}."
            )
        twice = _twice(row["id"] for row in rows if "id" in row)
        if twice:
            raise DatasetError(f"{file.path} has ids more than once in {table!r}: {name_some(twice)}.")
    twice = _twice(plain(row["name"]) for row in content["categories"])
    if twice:
        raise DatasetError(f"{file.path} has categories of the same name: {name_some(twice)}. Join them.")
    categories = {row["id"]: plain(row["name"]) for row in content["categories"]}
    images = {row["id"]: row for row in content["images"]}
    for key, known, table in (("category_id", categories, "categories"), ("image_id", images, "images")):
        lost = sorted({str(row[key]) for row in content["annotations"] if row[key] not in known})
        if lost:
            raise DatasetError(
                f"{file.path} has annotations with {key} {name_some(lost)}, which {table!r} doesn't have. "
                "Export the file again, or remove these annotations."
            )
    return categories, images


def _locate_images(file: CocoFile, images: dict[Any, dict[str, Any]], root: Path) -> dict[Any, Path]:
    """The path of each image; looked for beside the file, in `images`, and in a folder called as the part."""
    part = file.path.stem.split("_")[-1]
    folders = []
    for base in dict.fromkeys((file.path.parent, root, file.path.parent.parent)):
        folders += [base, base / "images", base / part, base / "images" / part]
    named = NamedFiles(folders)
    paths, missing = {}, []
    for number, image in images.items():
        found = named.find(str(image["file_name"]))
        if found is None:
            missing.append(str(image["file_name"]))
        paths[number] = found
    if missing:
        raise DatasetError(
            f"{len(missing)} image(s) of {file.path} not found: {name_some(missing)}. Expected beside it or "
            "in "
            f"{file.path.parent / 'images'}."
        )
    twice = _twice(str(path) for path in paths.values())
    if twice:
        raise DatasetError(f"{file.path} lists images more than once: {name_some(twice)}. List each once.")
    return paths


def _read_outline(annotation: dict[str, Any], header: ImageHeader, place: str) -> Shape | None:
    """The shape of one annotation; None where it has none or nothing is inside."""
    outline = annotation.get("segmentation")
    try:
        if isinstance(outline, dict):
            if list(outline["size"]) != [header.height, header.width]:
                raise ValueError(f"made for {outline['size']} pixels, not {header.height} x {header.width}")
            runs = outline["counts"]
            mask = mask_from_runs(
                decode_runs(runs) if isinstance(runs, str) else runs, header.height, header.width
            )
            return None if mask is None else PackedMask.pack(mask)
        rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in outline or ()]
        if not all(np.isfinite(ring).all() for ring in rings):
            raise ValueError("a coordinate is no number")
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"The outline of {place} can't be read ({error}). Export the file again."
        ) from error
    parts = tuple((ring,) for ring in rings if len(ring) >= 3)
    return Polygons.from_parts(parts) if parts else None


def _twice(values: Any) -> list[str]:
    return [str(value) for value, count in Counter(values).items() if count > 1]
