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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ann.data.dataset import (
    Dataset,
    LabelledImage,
    check_bands,
    check_classes,
    check_found,
    check_labels,
    name_some,
)
from ann.data.outlines.objects import Label, Sieve, check_drawn, far_apart, far_apart_note
from ann.data.outlines.rle import decode_runs, mask_from_runs
from ann.data.outlines.shapes import PackedMask, Polygons, Shape
from ann.data.pixels.rasters import ImageHeader, read_header
from ann.data.pixels.windows import whole
from ann.data.readers.class_column import AS_THEY_ARE, ClassValues, as_text
from ann.data.readers.coco_fields import identity, is_set, stated_length
from ann.data.readers.coco_files import CocoFile, NamedFiles, find_coco
from ann.data.readers.labelled_image import labelled_image
from ann.errors import DatasetError

FRACTION_MARGIN = 0.1  # outlines that are fractions of the image's size may reach out of it by rounding


@dataclass(eq=False)
class _Labels:
    """What is gathered while annotations are read."""

    class_values: ClassValues
    by_class: dict[str, list[str]] = field(default_factory=dict)
    without_outline: list[str] = field(default_factory=list)
    fractions: list[str] = field(default_factory=list)
    scattered: list[str] = field(default_factory=list)
    sieve: Sieve = field(default_factory=Sieve)

    def notes(self) -> list[str]:
        """What a person should know of labels that are no objects."""
        notes = self.sieve.notes()
        for places, what in (
            (self.without_outline, "without an outline"),
            (self.fractions, "with coordinates of 0 to 1, which are expected in pixels,"),
        ):
            if places:
                notes.append(f"{len(places)} annotation(s) {what} were ignored: {name_some(places)}.")
        if self.scattered:
            way_out = "give each its own annotation"
            notes.append(far_apart_note("The data", "outlines", self.scattered, way_out))
        return notes


def read_coco(
    path: str | Path,
    classes: Sequence[str],
    found: Sequence[CocoFile] | None = None,
    class_values: ClassValues = AS_THEY_ARE,
) -> Dataset:
    """Open a COCO dataset; outlines stay polygons or packed masks in memory.

    found: the files that `find_coco` found, to spare reading the files twice; class_values: what the names of
        categories mean.

    Raises:
        DatasetError: no COCO file; boxes without outlines; coordinates of 0 to 1; ids or images given
            twice; a missing image or category; outlines or images that can't be read or don't fit together;
            classes that don't match `classes`.
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

    labels = _Labels(class_values)
    opened = {file.path: _read_file(file, classes, root, labels) for file in used}
    check_labels(labels.by_class, classes, f"Categories with annotations in {root}", class_values=True)
    everything = [image for images in opened.values() for image in images]
    check_found(everything, path)
    check_bands(everything)
    twice = _twice(image.path for image in everything)
    if twice:
        raise DatasetError(f"Images listed by more than one COCO file: {name_some(twice)}. Keep each in one.")

    notes = labels.notes()
    check_drawn(everything, classes, notes, f"annotations in {root}")
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
        stated = [stated_length(images[number].get(side)) for side in ("height", "width")]
        if stated[0] not in (None, header.height) or stated[1] not in (None, header.width):
            raise DatasetError(
                f"{file.path} says {header.path} has {stated[0]} x {stated[1]} pixels (height x width), it "
                f"has {header.height} x {header.width}. Use the images that were labelled, at their full "
                "size."
            )
    names = {number: labels.class_values.class_of(name, classes) for number, name in categories.items()}
    for annotation in file.content["annotations"]:
        name = names[identity(annotation["category_id"])]
        labels.by_class.setdefault(name, []).append(_place_of(annotation, file))
    found: dict[str, list[Label]] = {number: [] for number in images}
    for annotation, place, shape in _read_outlines(file, headers, labels):
        name = names[identity(annotation["category_id"])]
        if name in classes:
            class_id = classes.index(name) + 1
            crowd = _is_crowd(annotation, place)
            label = Label(shape=shape, class_id=-class_id if crowd else class_id, place=place)
            found[identity(annotation["image_id"])].append(label)
    opened = []
    for number, image in images.items():
        header = headers[number]
        kept = labels.sieve.keep(found[number], whole(header.height, header.width))
        shapes, ids = [label.shape for label in kept], [label.class_id for label in kept]
        opened.append(labelled_image(header, shapes, ids, len(classes), name=image["file_name"]))
    return opened


def _read_outlines(
    file: CocoFile, headers: dict[str, ImageHeader], labels: _Labels
) -> list[tuple[dict[str, Any], str, Shape]]:
    """The annotations of a file that have an outline, with what they are called and their shape.

    Raises:
        DatasetError: all have boxes alone, or coordinates of 0 to 1.
    """
    annotations = file.content["annotations"]
    outlines, without, fractions = [], [], []
    for annotation in annotations:
        place = _place_of(annotation, file)
        header = headers[identity(annotation["image_id"])]
        shape = _read_outline(annotation, header, place)
        if shape is None:
            without.append(place)
        elif _is_fraction(shape, header):
            fractions.append(place)
        else:
            outlines.append((annotation, place, shape))
            if isinstance(shape, Polygons) and far_apart([_box_of(rings[0]) for rings in shape.parts]):
                labels.scattered.append(place)
    if fractions and not outlines:
        raise DatasetError(
            f"The outlines in {file.path} have coordinates of 0 to 1 ({name_some(fractions)}): "
            "they are fractions of the image's size, where COCO files hold pixels. Multiply x by "
            "the width and y by the height, or export the file again."
        )
    if without and not outlines and any(annotation.get("bbox") for annotation in annotations):
        raise DatasetError(
            f"The annotations in {file.path} have boxes but no outlines ({name_some(without)}). The outline "
            "of each object is needed: export it as 'segmentation', or draw the outlines."
        )
    labels.without_outline += without
    labels.fractions += fractions
    return outlines


def _box_of(ring: np.ndarray) -> tuple[float, float, float, float]:
    return (*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist())


def _place_of(annotation: dict[str, Any], file: CocoFile) -> str:
    return f"annotation {annotation.get('id')} of {file.path.name}"


def _is_fraction(shape: Shape, header: ImageHeader) -> bool:
    """Whether an outline lies in the first pixel of a larger image, so that its coordinates are no pixels."""
    if not isinstance(shape, Polygons) or max(header.height, header.width) == 1:
        return False
    points = np.concatenate([rings[0] for rings in shape.parts])
    return bool((np.abs(points - 0.5) <= 0.5 + FRACTION_MARGIN).all())


def _is_crowd(annotation: dict[str, Any], place: str) -> bool:
    try:
        return is_set(annotation, "iscrowd")
    except ValueError as error:
        raise DatasetError(f"The {place} can't be read: {error}. Export the file again.") from error


def _check_tables(file: CocoFile) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
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
        if table != "annotations":  # ids of annotations are names for messages alone
            twice = _twice(identity(row["id"]) for row in rows)
            if twice:
                raise DatasetError(f"{file.path} has ids more than once in {table!r}: {name_some(twice)}.")
    categories = {identity(row["id"]): as_text(row["name"]) for row in content["categories"]}
    images = {identity(row["id"]): row for row in content["images"]}
    for key, known, table in (("category_id", categories, "categories"), ("image_id", images, "images")):
        lost = sorted({str(row[key]) for row in content["annotations"] if identity(row[key]) not in known})
        if lost:
            raise DatasetError(
                f"{file.path} has annotations with {key} {name_some(lost)}, which {table!r} doesn't have. "
                "Export the file again, or remove these annotations."
            )
    # some exports name the data set as a category above the classes; such a one has no annotations
    used = {identity(row["category_id"]) for row in content["annotations"]}
    twice = _twice(categories[number] for number in used)
    if twice:
        raise DatasetError(f"{file.path} has categories of the same name: {name_some(twice)}. Join them.")
    return categories, images


def _locate_images(file: CocoFile, images: dict[str, dict[str, Any]], root: Path) -> dict[str, Path]:
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
            f"in {file.path.parent / 'images'}."
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
            size = [stated_length(side) for side in outline["size"]]
            if size != [header.height, header.width]:
                raise ValueError(f"made for {outline['size']} pixels, not {header.height} x {header.width}")
            runs = outline["counts"]
            mask = mask_from_runs(
                decode_runs(runs) if isinstance(runs, str) else runs, header.height, header.width
            )
            return None if mask is None else PackedMask.pack(mask)
        rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in _rings(outline or ())]
        if not all(np.isfinite(ring).all() for ring in rings):
            raise ValueError("a coordinate is no number")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"The outline of {place} can't be read ({error}). Export the file again."
        ) from error
    parts = tuple((ring,) for ring in rings if len(ring) >= 3)
    return replace(Polygons.from_parts(parts), area=_common_area(parts)) if parts else None


def _rings(outline: Sequence[Any]) -> Sequence[Any]:
    """The rings of an outline; one that isn't inside of a list, flat or as points, is the only one."""
    if all(isinstance(part, (int, float, str)) for part in outline):
        return [outline] if len(outline) else []
    points = all(isinstance(part, (list, tuple)) and len(part) == 2 for part in outline)
    return [outline] if points else outline


def _common_area(parts: Sequence[tuple[np.ndarray, ...]]) -> float:
    """Pixels inside of any of several rings, which may overlap, be nested or cross themselves."""
    polygons = np.array([shapely.Polygon(rings[0]) for rings in parts])
    valid = shapely.is_valid(polygons)
    if not valid.all():
        polygons = shapely.make_valid(polygons)
    return float(shapely.area(polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)))


def _twice(values: Any) -> list[str]:
    return [str(value) for value, count in Counter(values).items() if count > 1]
