"""Image files, read window by window through rasterio (GDAL), whatever their type and number of bands."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ann.data.pixels.decoded import Decoded, DecodedImages
from ann.data.pixels.windows import Window, whole
from ann.errors import DatasetError

_filters = threading.Lock()
WHOLE_FORMATS = ("PNG", "JPEG")  # GDAL decodes all of such a file down to the last row that is asked for
DECODED_BYTES = 128 << 20
decoded_images = DecodedImages(DECODED_BYTES)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the header of an image file says; pixel_size in map units, None without georeference."""

    path: str
    height: int
    width: int
    bands: int
    dtype: str
    pixel_size: float | None


def warning_filters() -> threading.Lock:
    """To be held while warning filters are changed: threads share them, so one at a time may do it."""
    return _filters


@contextmanager
def open_image(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """An image file opened by rasterio.

    Raises:
        DatasetError: the file can't be opened, or reading from it fails inside of the `with` block.
    """
    try:
        with warning_filters(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path)
        with source:
            yield source
    except (RasterioError, OSError) as error:
        reason = error.__cause__ or error
        raise DatasetError(
            f"Image {path} can't be read ({reason}). It may be truncated or damaged: replace it or take it "
            "out."
        ) from error


def read_header(path: str | Path) -> ImageHeader:
    """Size, bands and type of an image file, after a cheap test that the file is complete.

    Raises:
        DatasetError: it can't be opened, is cut short, or has bands that are no plain numbers.
    """
    check_complete(path)
    with open_image(path) as source:
        types = set(source.dtypes)
        if len(types) > 1 or any(name.startswith("complex") for name in types):
            raise DatasetError(
                f"Image {path} has bands of type {', '.join(sorted(types))}; expected one real type."
            )
        if "palette" in {colour.name for colour in source.colorinterp}:
            raise DatasetError(
                f"Image {path} stores colours in a palette; convert it to bands, e.g. gdal_translate "
                "-expand rgb."
            )
        # The end of a file is what is missing when a copy was interrupted.
        if source.driver not in WHOLE_FORMATS:
            source.read(source.count, window=rasterio.windows.Window(0, source.height - 1, source.width, 1))
        return ImageHeader(
            path=str(path),
            height=source.height,
            width=source.width,
            bands=colour_bands(source),
            dtype=source.dtypes[0],
            pixel_size=None if source.transform.is_identity else abs(source.transform.a) or None,
        )


def read_pixels(path: str | Path, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A window of an image, or all of it: (H, W, C), and (H, W) bool that is False without data, or None.

    Cells without data (no-data value, alpha band, NaN) are 0 in all bands. PNG and JPEG files stay decoded
    in memory as long as `DECODED_BYTES` suffice.

    Raises:
        DatasetError: the pixels can't be read.
    """
    key = _file_key(path)
    decoded = decoded_images.get(key)
    if decoded is not None:
        return _part(decoded, window)
    with open_image(path) as source:
        size = source.width * source.height * source.count * np.dtype(source.dtypes[0]).itemsize
        if source.driver in WHOLE_FORMATS and decoded_images.accepts(size):
            decoded = _read(source, whole(source.height, source.width))
            decoded_images.put(key, decoded)
            return _part(decoded, window)
        return _read(source, window or whole(source.height, source.width))


def _read(source: rasterio.DatasetReader, window: Window) -> Decoded:
    area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
    bands = list(range(1, colour_bands(source) + 1))
    pixels = np.ascontiguousarray(np.moveaxis(source.read(bands, window=area), 0, -1))
    valid = None
    flags = [flag.name for band in bands for flag in source.mask_flag_enums[band - 1]]
    if any(flag != "all_valid" for flag in flags):
        valid = np.all(source.read_masks(bands, window=area) != 0, axis=0)
    if len(bands) < source.count:  # GDAL takes an alpha band as mask only beside one or three others
        opaque = source.read(source.count, window=area) != 0
        valid = opaque if valid is None else valid & opaque
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=-1)
        valid = finite if valid is None else valid & finite
    if valid is None or valid.all():
        return pixels, None
    pixels[~valid] = 0
    return pixels, valid


def _part(decoded: Decoded, window: Window | None) -> Decoded:
    """A copy of a window of a kept image."""
    pixels, valid = decoded
    y1, x1, y2, x2 = (window or whole(*pixels.shape[:2])).box
    part = None if valid is None else valid[y1:y2, x1:x2].copy()
    return pixels[y1:y2, x1:x2].copy(), None if part is None or part.all() else part


def _file_key(path: str | Path) -> Hashable:
    """Another one for a file that was changed."""
    try:
        status = os.stat(path)
    except OSError:  # a file that isn't there, or one in a store that GDAL reaches
        return str(path), None
    return str(path), status.st_mtime_ns, status.st_size


def find_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All files at any depth below a directory whose suffix is one of these (lower case), sorted."""
    return sorted(
        Path(directory, name)
        for directory, _, names in os.walk(path)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in suffixes
    )


def find_rasters(path: str | Path) -> list[Path]:
    """All image files at any depth below a directory, sorted."""
    return find_files(path, IMAGE_SUFFIXES)


def check_complete(path: str | Path) -> None:
    """Raise DatasetError where a PNG or JPEG file is empty or lacks its end, without decoding it."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(8)
            file.seek(max(0, size - 4096))
            end = file.read()
    except OSError as error:
        raise DatasetError(f"File {path} can't be read ({error.strerror}). Check its permissions.") from error
    cut = size == 0
    if start.startswith(b"\x89PNG"):
        cut = b"IEND" not in end
    elif start.startswith(b"\xff\xd8"):
        cut = b"\xff\xd9" not in end
    if cut:
        raise DatasetError(f"Image {path} is truncated ({size} bytes). Copy it again or take it out.")


def colour_bands(source: rasterio.DatasetReader) -> int:
    """Number of bands without a last one that is an alpha channel (it says where data is)."""
    return source.count - (source.count > 1 and source.colorinterp[-1].name == "alpha")
