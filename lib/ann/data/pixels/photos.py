"""Images as a whole, as large as they are needed: turned as their metadata say, shrunk while they are
decoded.

A photo of a drone has many times the pixels that a classifier looks at. JPEG files are decoded at an eighth,
a quarter or half of their size where that suffices, which is many times faster; what was read stays in memory
as long as there is room (see `decoded`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from affine import Affine

from ann.data.pixels.decoded import Decoded
from ann.data.pixels.image_files import UPRIGHT, file_orientation
from ann.data.pixels.means import fitted_size
from ann.data.pixels.rasters import (
    ImageHeader,
    decoded_images,
    file_key,
    open_image,
    read_header,
    read_window,
)
from ann.data.pixels.windows import Window, whole

# What Exif's orientations ask viewers to do with (H, W, ...); Exif 2.32, 4.6.4
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}
LYING = (5, 6, 7, 8)  # orientations in which height and width change places


@dataclass(frozen=True)
class PhotoPixels:
    """The pixels of a photo: called with a window of it gives what `read_pixels` gives.

    height, width: of the photo as it is shown here. bands: their numbers in the file, see `read_window`.
    """

    path: str
    height: int
    width: int
    orientation: int = UPRIGHT
    bands: tuple[int, ...] | None = None

    def __call__(self, window: Window | None = None) -> Decoded:
        key = (self, file_key(self.path))
        decoded = decoded_images.get(key)
        if decoded is None:
            decoded = self._read()
            decoded_images.put(key, decoded)
        y1, x1, y2, x2 = (window or whole(self.height, self.width)).box
        pixels, valid = decoded
        return pixels[y1:y2, x1:x2].copy(), None if valid is None else valid[y1:y2, x1:x2].copy()

    def _read(self) -> Decoded:
        size = (self.height, self.width)
        size = size[::-1] if self.orientation in LYING else size
        with open_image(self.path) as source:
            own = (source.height, source.width)
            shrunk = None if size == own else size
            pixels, valid = read_window(source, whole(*own), self.bands, shrunk)
        turn = TURNS[self.orientation]
        return np.ascontiguousarray(turn(pixels)), None if valid is None else turn(valid)


def open_photo(
    path: str | Path, longest: int, bands: tuple[int, ...] | None = None
) -> tuple[ImageHeader, PhotoPixels]:
    """What is known of a photo as it is shown here, at most `longest` pixels wide and high, and its pixels.

    bands: their numbers in the file; None: all but alpha bands. A photo that has a place on the ground is not
    turned.

    Raises:
        DatasetError: it can't be opened, is cut short, or has bands that are no plain numbers.
    """
    header = read_header(path, check=file_orientation)
    orientation = UPRIGHT if header.place else file_orientation(path)
    height, width = fitted_size(header.height, header.width, longest)
    place = header.place
    if place is not None:
        right, down = header.width / width, header.height / height
        a, b, c, d, e, f = place.transform[:6]
        place = replace(place, transform=Affine(a * right, b * down, c, d * right, e * down, f))
    factor = header.width / width
    if orientation in LYING:
        height, width = width, height
    shown = replace(
        header,
        height=height,
        width=width,
        bands=len(bands) if bands else header.bands,
        pixel_size=None if header.pixel_size is None else header.pixel_size * factor,
        place=place,
    )
    return shown, PhotoPixels(header.path, height, width, orientation, bands)
