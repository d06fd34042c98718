"""The directory format: one directory per image, with the image and one mask file for each instance.

    scene_1/scene_1.tif, scene_1/scene_1-house-1.png, scene_1/scene_1-house-2.png, scene_1/scene_1-barn-1.png

A mask is called `<image>-<class>-<number>.png`; black and transparent are outside, anything else inside,
whether stored as grey, colours or a palette. Directories may lie at any depth. Names of images and classes
may hold dashes: a file is a mask when the directory has the image that its name begins with.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from ann.data.dataset import Dataset, check_bands, check_classes, check_found, check_labels, name_some
from ann.data.folders import files_with_suffix, walk
from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.outlines.objects import Label, Sieve
from ann.data.outlines.shapes import PackedMask
from ann.data.pixels.image_files import check_file
from ann.data.pixels.rasters import (
    IMAGE_SUFFIXES,
    ImageHeader,
    alpha_bands,
    colour_bands,
    open_image,
    read_header,
    read_pixels,
)
from ann.data.pixels.windows import Window, whole
from ann.data.readers.labelled_image import labelled_image
from ann.data.text import plain
from ann.errors import DatasetError

MASK_SUFFIX = ".png"
STRIP_PIXELS = 1 << 24  # masks are read in strips of that many pixels, so a large one doesn't fill memory
MASK_SHARE = 0.95  # of the pixels that have one of two values: drawings with soft edges are masks, too
_CLASS_AND_NUMBER = re.compile(r"(?P<name>.+)-(?P<number>\d+)")


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask file and the class that its name says."""

    path: Path
    class_name: str


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """An image and its mask files, sorted by name."""

    path: Path
    masks: tuple[MaskFile, ...]


def read_directories(path: str | Path, classes: Sequence[str]) -> Dataset:
    """Open a dataset in the directory format; every instance is kept, packed, in memory.

    All masks are read once, which checks and indexes them; of images only the header is read, but for PNG
    files without masks.

    Raises:
        DatasetError: no image; a mask without an image, of another size than its image, stored as JPEG, or
            of which it isn't clear what is inside; an image without masks that looks like a mask; a class
            that is not in `classes` or has no instance; a file that can't be read; images of different bands.
    """
    classes = check_classes(classes)
    found = find_images(path, classes)
    masks = [mask for files in found for mask in files.masks]
    check_labels(_by_class(masks), classes, "Masks of a class")
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        headers = list(workers.map(lambda files: read_header(files.path), found))
        check_bands(headers)
        _check_mask_sizes(found, headers, workers)
        unlabelled = [
            header
            for files, header in zip(found, headers, strict=True)
            if not files.masks and _may_be_mask(header)
        ]
        _check_no_masks(unlabelled, workers)
        packed = dict(zip((mask.path for mask in masks), workers.map(_pack_mask, masks), strict=True))

    empty = [mask for mask in masks if packed[mask.path] is None]
    if empty:
        check_labels(_by_class(set(masks) - set(empty)), classes, "Masks of a class")
    sieve = Sieve()
    images = []
    for files, header in zip(found, headers, strict=True):
        labels = [
            Label(
                shape=packed[mask.path],
                class_id=classes.index(mask.class_name) + 1,
                place=str(mask.path),
            )
            for mask in files.masks
            if packed[mask.path] is not None
        ]
        kept = sieve.keep(labels, whole(header.height, header.width))
        images.append(
            labelled_image(
                header,
                [label.shape for label in kept],
                [label.class_id for label in kept],
                len(classes),
                name=files.path.relative_to(path).as_posix(),
            )
        )
    notes = sieve.notes()
    if empty:
        names = name_some([str(mask.path) for mask in empty])
        notes.append(f"{len(empty)} mask(s) without a pixel inside were ignored: {names}.")
    return Dataset(classes=classes, images=tuple(images), notes=tuple(notes))


def find_images(path: str | Path, classes: Sequence[str]) -> tuple[ImageFiles, ...]:
    """All images below a directory with their masks, in the order of their paths; no file is opened.

    Raises:
        DatasetError: the directory isn't there or holds no image, or a mask has no image or is no PNG.
    """
    if not Path(path).is_dir():
        raise DatasetError(f"Training dataset {path} is not a directory.")
    found = [files for directory in _walk(path) for files in _sort_files(directory, classes)]
    check_found(found, path)
    return tuple(sorted(found, key=lambda files: files.path))


def has_masks(path: str | Path, classes: Sequence[str]) -> Path | None:
    """A file that is called as a mask: after an image of its directory, or with one of the classes; or
    None.
    """
    for files in _walk(path):
        stems = {plain(file.stem) for file in files}
        ending = _class_ending(classes)
        for file in files:
            if _readings(plain(file.stem), stems) or ending.fullmatch(plain(file.stem)):
                return file
    return None


def _walk(path: str | Path) -> Iterator[list[Path]]:
    """The image files, sorted, of each directory."""
    for directory, names in walk(path):
        yield files_with_suffix(directory, names, IMAGE_SUFFIXES)


def _class_ending(classes: Sequence[str]) -> re.Pattern[str]:
    return re.compile(f".+-({'|'.join(re.escape(name) for name in classes)})-\\d+")


def _sort_files(files: Sequence[Path], classes: Sequence[str]) -> list[ImageFiles]:
    """Tell the images of one directory from masks, and give each mask to its image."""
    stems = {plain(file.stem) for file in files}
    readings = {stem: _readings(stem, stems) for stem in stems}
    has_masks = {image for found in readings.values() for image, name in found if name in classes}
    images: dict[str, Path] = {}
    masks: dict[str, list[MaskFile]] = {}
    # From short to long names, so that it is known whether the name before a class is an image's.
    for file in sorted(files, key=lambda file: (len(plain(file.stem)), file.name)):
        stem = plain(file.stem)
        owners = [(image, name) for image, name in readings[stem] if image in images]
        known = [(image, name) for image, name in owners if name in classes]
        if known or (owners and stem not in has_masks):
            image, name = max(known or owners, key=lambda owner: len(owner[0]))
            masks.setdefault(image, []).append(MaskFile(path=file, class_name=name))
        elif stem in images:
            raise DatasetError(
                f"Images {images[stem]} and {file} have the same name, so it isn't known which of them "
                "the masks belong to. Keep one of them in the directory."
            )
        else:
            images[stem] = file
    _check_orphans([file for stem, file in images.items() if stem not in masks], classes)
    _check_png([mask.path for found in masks.values() for mask in found])
    return [
        ImageFiles(path=file, masks=tuple(sorted(masks.get(stem, ()), key=lambda mask: mask.path)))
        for stem, file in images.items()
    ]


def _readings(stem: str, stems: set[str]) -> list[tuple[str, str]]:
    """All (image, class) that a mask's name can mean, where a file of the image's name is there."""
    found = []
    for dash in (place for place, letter in enumerate(stem) if letter == "-"):
        match = _CLASS_AND_NUMBER.fullmatch(stem[dash + 1 :])
        if match and stem[:dash] in stems:
            found.append((stem[:dash], match["name"]))
    return found


def _check_orphans(images: Sequence[Path], classes: Sequence[str]) -> None:
    """Raise DatasetError where images without masks are named as masks are: their image is missing."""
    ending = _class_ending(classes)
    numbered: dict[str, list[Path]] = {}
    for file in images:
        match = re.fullmatch(r"(.+-.+)-\d+", plain(file.stem))
        if match and file.suffix.lower() == MASK_SUFFIX:
            numbered.setdefault(match[1], []).append(file)
    orphans = [
        file
        for files in numbered.values()
        for file in files
        if len(files) > 1 or ending.fullmatch(plain(file.stem))
    ]
    if orphans:
        raise DatasetError(
            f"Masks without an image: {name_some([str(file) for file in orphans])}. Expected the image, "
            "called as the part of the name before -<class>-<number>, in the same directory; rename files "
            "that are images."
        )


def _check_png(masks: Sequence[Path]) -> None:
    other = [str(mask) for mask in masks if mask.suffix.lower() != MASK_SUFFIX]
    if other:
        raise DatasetError(
            f"Masks must be .png files, found {name_some(other)}. JPEG blurs the border of a mask: export "
            "the masks as PNG (an image must not be called <other image>-<word>-<number>)."
        )


def _by_class(masks: Iterable[MaskFile]) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = {}
    for mask in sorted(masks, key=lambda mask: mask.path):
        labels.setdefault(mask.class_name, []).append(str(mask.path))
    return labels


def _check_mask_sizes(
    found: Sequence[ImageFiles], headers: Sequence[ImageHeader], workers: ThreadPoolExecutor
) -> None:
    """Raise DatasetError where a mask's size isn't that of its image; reads the masks' headers only."""
    pairs = [(mask, header) for files, header in zip(found, headers, strict=True) for mask in files.masks]
    sizes = workers.map(lambda pair: _png_size(pair[0].path), pairs)
    wrong = [
        f"{mask.path} ({height} x {width}, its image {header.height} x {header.width})"
        for (mask, header), (height, width) in zip(pairs, sizes, strict=True)
        if (height, width) != (header.height, header.width)
    ]
    if wrong:
        raise DatasetError(
            f"Masks of another size (height x width) than their image: {name_some(wrong)}. Make each mask "
            "from the image at its full size."
        )


def _png_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of a PNG file."""
    check_file(path)
    with open(path, "rb") as file:
        start = file.read(24)
    if not start.startswith(b"\x89PNG\r\n\x1a\n") or len(start) < 24:
        content = "JPEG" if start.startswith(b"\xff\xd8") else "not PNG"
        raise DatasetError(f"Mask {path} is called .png, but its content is {content}. Export it as PNG.")
    width, height = struct.unpack(">II", start[16:24])
    return height, width


def _may_be_mask(header: ImageHeader) -> bool:
    return header.bands == 1 or Path(header.path).suffix.lower() == MASK_SUFFIX


def _check_no_masks(headers: Sequence[ImageHeader], workers: ThreadPoolExecutor) -> None:
    """Raise DatasetError where what was taken for images without objects looks like masks."""
    alike = workers.map(_looks_like_mask, headers)
    masks = [header.path for header, is_mask in zip(headers, alike, strict=True) if is_mask]
    if masks:
        raise DatasetError(
            f"Images that look like masks, as they show one value on black: {name_some(masks)}. Call a mask "
            "<image>-<class>-<number>.png, beside its image, and move other files apart."
        )


def _looks_like_mask(header: ImageHeader) -> bool:
    """Whether nearly all pixels of an image are black or of one other value, and both occur."""
    black = other = False
    rows = max(1, STRIP_PIXELS // header.width)
    for row in range(0, header.height, rows):
        strip = Window(row=row, column=0, height=min(rows, header.height - row), width=header.width)
        pixels, _ = read_pixels(header.path, strip)
        first = pixels[..., 0]
        values, counts = np.unique(first[first != 0], return_counts=True)
        if (
            counts.sum() - counts.max(initial=0) > (1 - MASK_SHARE) * first.size
            or (pixels != pixels[..., :1]).any()
        ):
            return False
        black, other = black or counts.sum() < first.size, other or len(values) > 0
    return black and other


def _pack_mask(mask: MaskFile) -> PackedMask | None:
    """Read a mask file, strip by strip, and pack it; None where nothing is inside.

    Inside is what is neither black nor transparent; in a drawing of black alone, what isn't transparent.

    Raises:
        DatasetError: it can't be read, or its palette has no black.
    """
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), open_image(mask.path) as source:
        if source.colorinterp[0].name == "palette":
            return _pack(source, _palette_reader(source, mask.path))
        packed = _pack(source, _read_colours)
        if packed is None and alpha_bands(source):
            packed = _pack(source, _read_opaque)
            if packed is not None and packed.area == source.height * source.width:
                return None
        return packed


def _pack(
    source: rasterio.DatasetReader, read: Callable[[rasterio.DatasetReader, RasterWindow], np.ndarray]
) -> PackedMask | None:
    rows = max(1, STRIP_PIXELS // source.width)
    strips = []
    for row in range(0, source.height, rows):
        area = RasterWindow(0, row, source.width, min(rows, source.height - row))
        strip = crop_mask(read(source, area), row)
        if strip is not None:
            strips.append(strip)
    if not strips:
        return None
    return PackedMask.pack(strips[0] if len(strips) == 1 else _join(strips))


def _read_colours(source: rasterio.DatasetReader, area: RasterWindow) -> np.ndarray:
    """(H, W) bool: where a colour is shown that isn't black."""
    bands = colour_bands(source)
    inside = (source.read(bands, window=area) != 0).any(axis=0)
    if "all_valid" not in {flag.name for flag in source.mask_flag_enums[bands[0] - 1]}:
        inside &= (source.read_masks(bands, window=area) != 0).any(axis=0)
    return inside & _read_opaque(source, area)


def _read_opaque(source: rasterio.DatasetReader, area: RasterWindow) -> np.ndarray:
    """(H, W) bool: where no alpha band says transparent."""
    opaque = np.ones((int(area.height), int(area.width)), bool)
    for band in alpha_bands(source):
        opaque &= source.read(band, window=area) != 0
    return opaque


def _palette_reader(
    source: rasterio.DatasetReader, path: Path
) -> Callable[[rasterio.DatasetReader, RasterWindow], np.ndarray]:
    """Reads where the colours that indices stand for are shown and not black.

    Raises:
        DatasetError: two and more colours occur, but neither black nor transparent.
    """
    shown = np.zeros(256, bool)
    for index, (red, green, blue, alpha) in source.colormap(1).items():
        shown[index] = (red or green or blue) and alpha
    used = np.zeros(256, bool)
    rows = max(1, STRIP_PIXELS // source.width)
    for row in range(0, source.height, rows):
        area = RasterWindow(0, row, source.width, min(rows, source.height - row))
        used |= np.bincount(source.read(1, window=area).ravel(), minlength=256) > 0
    if used.sum() > 1 and shown[used].all():
        raise DatasetError(
            f"Mask {path} has colours in a palette, but neither black nor transparent, so it isn't clear "
            "what is outside. Store it in grey: 0 outside, 255 inside."
        )
    return lambda source, area: shown[source.read(1, window=area)]


def _join(strips: Sequence[CroppedMask]) -> CroppedMask:
    boxes = np.array([strip.box for strip in strips])
    y1, x1, y2, x2 = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
    pixels = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for strip, (top, left, bottom, right) in zip(strips, boxes, strict=True):
        pixels[top - y1 : bottom - y1, left - x1 : right - x1] = strip.pixels
    return CroppedMask(row=int(y1), column=int(x1), pixels=pixels)
