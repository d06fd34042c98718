"""Images with a class each: what their formats end in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ann.data.dataset import LabelledImage, check_bands
from ann.data.example import Example
from ann.data.pixels.photos import open_photo
from ann.data.pixels.rasters import ImageHeader
from ann.data.pixels.windows import Window, whole
from ann.data.readers.labelled_image import PixelSource

Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ClassFile:
    """An image file and its class id. source: what is never split, as a flight; None: the image itself."""

    path: Path
    name: str
    class_id: int
    source: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassReader:
    """Reads windows of an image that has a class as a whole."""

    pixels: PixelSource
    name: str
    height: int
    width: int
    class_id: int

    def __call__(self, window: Window | None = None) -> Example:
        """The window, or the whole image.

        Raises:
            DatasetError: the pixels can't be read.
        """
        image, valid = self.pixels(window or whole(self.height, self.width))
        return Example(
            image=image,
            masks=(),
            class_ids=np.zeros(0, np.int32),
            name=self.name,
            valid=valid,
            class_id=self.class_id,
        )


def image_of_class(
    header: ImageHeader, pixels: PixelSource, *, name: str, class_id: int, class_count: int
) -> LabelledImage:
    """An image and its class, which counts as an object that fills it; `header.path` is the scene."""
    return LabelledImage(
        name=name,
        path=header.path,
        height=header.height,
        width=header.width,
        bands=header.bands,
        dtype=header.dtype,
        instance_counts=tuple(int(number == class_id) for number in range(1, class_count + 1)),
        boxes=np.array([[0, 0, header.height, header.width]], dtype=np.int32),
        class_ids=np.array([class_id], dtype=np.int32),
        source=header.path,
        pixel_size=header.pixel_size,
        read=ClassReader(
            pixels=pixels, name=name, height=header.height, width=header.width, class_id=class_id
        ),
        place=header.place,
        band_labels=header.band_labels,
    )


def open_class_files(
    files: Sequence[ClassFile], class_count: int, longest: int, report: Report | None = None
) -> tuple[LabelledImage, ...]:
    """Image files as labelled images; only their headers are read.

    longest: pixels of the longer side that is needed, see `open_photo`.

    Raises:
        DatasetError: a file that can't be used, see `open_photo`, or images of different bands.
    """

    def open_one(file: ClassFile) -> LabelledImage:
        header, pixels = open_photo(file.path, longest)
        image = image_of_class(
            header, pixels, name=file.name, class_id=file.class_id, class_count=class_count
        )
        return image if file.source is None else replace(image, source=file.source)

    images = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        for image in workers.map(open_one, files):
            images.append(image)
            if report:
                report(len(images), len(files))
    check_bands(images)
    return tuple(images)
