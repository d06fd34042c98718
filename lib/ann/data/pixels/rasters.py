"""Image files, read window by window through rasterio (GDAL), whatever their type and number of bands."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ann.data.band_labels import known_labels
from ann.data.dataset import Place
from ann.data.folders import find_files
from ann.data.metres import metres_per_pixel
from ann.data.pixels.decoded import Decoded, DecodedImages
from ann.data.pixels.image_files import check_file
from ann.data.pixels.windows import Window, whole
from ann.data.text import check_encoding
from ann.errors import DatasetError

_filters = threading.Lock()
WHOLE_FORMATS = ("PNG", "JPEG")  # GDAL decodes all of such a file down to the last row that is asked for
DECODED_BYTES = 128 << 20
decoded_images = DecodedImages(DECODED_BYTES)
LARGEST_MEASURED = 65535  # a no-data value up to here may be a colour, too
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the header of an image file says; pixel_size in metres and place are None where not known.

    band_labels: see `data.band_labels`.
    """

    path: str
    height: int
    width: int
    bands: int
    dtype: str
    pixel_size: float | None
    place: Place | None = None
    band_labels: tuple[str, ...] = ()


def warning_filters() -> threading.Lock:
    """To be held while warning filters are changed: threads share them, so one at a time may do it."""
    return _filters


@contextmanager
def open_image(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """An image file opened by rasterio.

    Raises:
        DatasetError: the file can't be opened, or reading from it fails inside of the `with` block.
    """
    with reading_errors(path):
        check_encoding(path)
        with warning_filters(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path)
        with source:
            yield source


@contextmanager
def reading_errors(path: str | Path) -> Iterator[None]:
    """Turn what rasterio raises about a file into `DatasetError` that names it."""
    try:
        yield
    except (RasterioError, OSError) as error:
        reason = error.__cause__ or error
        raise DatasetError(
            f"Image {path} can't be read ({reason}). It may be truncated or damaged: replace it or take it "
            "out."
        ) from error


def read_header(path: str | Path, check: Callable[[str | Path], object] = check_file) -> ImageHeader:
    """Size, bands and type of an image file, after a cheap test that the file is complete.

    check: looks at the file first. Size and place are those of the pixels as they are stored.

    Raises:
        DatasetError: it can't be opened, is cut short, or has bands that are no plain numbers.
    """
    check(path)
    with open_image(path) as source:
        types = set(source.dtypes)
        if len(types) > 1 or any(name.startswith("complex") for name in types):
            raise DatasetError(
                f"Image {path} has bands of type {', '.join(sorted(types))}; expected one real type."
            )
        _check_colours(source, path)
        # The end of a file is what is missing when a copy was interrupted.
        if source.driver not in WHOLE_FORMATS:
            source.read(source.count, window=rasterio.windows.Window(0, source.height - 1, source.width, 1))
        return ImageHeader(
            path=str(path),
            height=source.height,
            width=source.width,
            bands=len(colour_bands(source)),
            dtype=source.dtypes[0],
            pixel_size=metres_per_pixel(source.transform, source.crs, source.height, source.width),
            place=_place(source),
            band_labels=known_labels(band_descriptions(source)),
        )


def _check_colours(source: rasterio.DatasetReader, path: str | Path) -> None:
    """Raise DatasetError where values aren't the brightness of what is shown, but stand for it."""
    if "palette" in {colour.name for colour in source.colorinterp}:
        raise DatasetError(
            f"Image {path} stores colours in a palette; convert it to bands, e.g. gdal_translate -expand rgb."
        )
    if source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        raise DatasetError(
            f"Image {path} stores white as 0 (photometric interpretation MINISWHITE), so it would be read as "
            "its negative. Invert it and store it as MINISBLACK."
        )


def _place(source: rasterio.DatasetReader) -> Place | None:
    if source.transform.is_identity:
        return None
    return Place(frame=source.crs.to_wkt() if source.crs else "", transform=source.transform)


def read_window(
    source: rasterio.DatasetReader,
    window: Window,
    bands: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A window of an open file: (H, W, C) of its type, and (H, W) bool that is False without data, or None.

    bands: numbers from 1, in this order; None takes all but alpha bands. size: (height, width) that it is
    shrunk to, by means over pixels; None: its own. Where there is no data all bands are
    0. What counts as no data: transparent in any alpha band or mask; NaN, or a no-data value that can't be a
    measurement (negative, huge), in any band; a no-data value that can be one (0, 255) in all bands, because
    in one band alone it is a colour.

    Raises:
        RasterioError: the pixels can't be read, or JPEG data is damaged.
    """
    area = rasterio.windows.Window(window.column, window.row, window.width, window.height)
    bands = list(bands or colour_bands(source))
    means = {"out_shape": (len(bands), *size), "resampling": Resampling.average} if size else {}
    # Damaged JPEG data is only a warning to GDAL, which then gives grey pixels.
    with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="YES"):
        pixels = np.ascontiguousarray(np.moveaxis(source.read(bands, window=area, **means), 0, -1))
        valid = _valid_by_masks(source, bands, area, size)
        for band in alpha_bands(source):  # GDAL takes one as mask only beside one or three others
            if band not in bands:
                valid = _both(valid, source.read(band, window=area, out_shape=size) != 0)
    if pixels.dtype.kind == "f":
        valid = _both(valid, np.isfinite(pixels).all(axis=-1))
    if valid is None or valid.all():
        return pixels, None
    pixels[~valid] = 0
    return pixels, valid


def read_pixels(
    path: str | Path,
    window: Window | None = None,
    read: Callable[[rasterio.DatasetReader, Window], Decoded] = read_window,
) -> Decoded:
    """A window of an image, or all of it: (H, W, C), and (H, W) bool that is False without data, or None.

    Cells without data are 0 in all bands; which they are, `read_window` says. PNG and JPEG files stay decoded
    in memory as long as `DECODED_BYTES` suffice. read: what reads a window of the open file.

    Raises:
        DatasetError: the pixels can't be read.
    """
    key = (read, file_key(path))
    decoded = decoded_images.get(key)
    if decoded is not None:
        return _part(decoded, window)
    with open_image(path) as source:
        size = source.width * source.height * source.count * np.dtype(source.dtypes[0]).itemsize
        if source.driver in WHOLE_FORMATS and decoded_images.accepts(size):
            decoded = read(source, whole(source.height, source.width))
            decoded_images.put(key, decoded)
            return _part(decoded, window)
        return read(source, window or whole(source.height, source.width))


def _valid_by_masks(
    source: rasterio.DatasetReader,
    bands: Sequence[int],
    area: rasterio.windows.Window,
    size: tuple[int, int] | None,
) -> np.ndarray | None:
    """Where GDAL's masks of the bands, which tell no-data values too, say that there is data."""
    flags = [{flag.name for flag in source.mask_flag_enums[band - 1]} for band in bands]
    masked = [band for band, names in zip(bands, flags, strict=True) if "all_valid" not in names]
    if not masked:
        return None
    shown = source.read_masks(masked, window=area, out_shape=size and (len(masked), *size)) != 0
    colours = np.array([_may_be_measured(source.nodatavals[band - 1]) for band in masked])
    valid = shown[~colours].all(axis=0)
    return valid & shown[colours].any(axis=0) if colours.any() else valid


def _may_be_measured(nodata: float | None) -> bool:
    """Whether a no-data value is one that a sensor may give, too."""
    return nodata is not None and 0 <= nodata < LARGEST_MEASURED


def _both(valid: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    return other if valid is None else valid & other


def _part(decoded: Decoded, window: Window | None) -> Decoded:
    """A copy of a window of a kept image."""
    pixels, valid = decoded
    y1, x1, y2, x2 = (window or whole(*pixels.shape[:2])).box
    part = None if valid is None else valid[y1:y2, x1:x2].copy()
    return pixels[y1:y2, x1:x2].copy(), None if part is None or part.all() else part


def file_key(path: str | Path) -> Hashable:
    """Another one for a file that was changed."""
    try:
        status = os.stat(path)
    except OSError:  # a file that isn't there, or one in a store that GDAL reaches
        return str(path), None
    return str(path), status.st_mtime_ns, status.st_size


def find_rasters(path: str | Path) -> list[Path]:
    """All image files at any depth below a directory, sorted."""
    return find_files(path, IMAGE_SUFFIXES)


def band_descriptions(source: rasterio.DatasetReader) -> list[str | None]:
    """What the file says of each band without alpha channels."""
    return [source.descriptions[band - 1] for band in colour_bands(source)]


def colour_bands(source: rasterio.DatasetReader) -> list[int]:
    """Numbers of the bands without alpha channels (they say where data is)."""
    alpha = alpha_bands(source)
    return [band for band in source.indexes if band not in alpha]


def alpha_bands(source: rasterio.DatasetReader) -> list[int]:
    """Numbers of the alpha channels; none where a file has nothing else."""
    found = [band for band in source.indexes if source.colorinterp[band - 1].name == "alpha"]
    return found if len(found) < source.count else []
