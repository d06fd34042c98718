"""Image files as scenes, read window by window."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ann.data.pixels.rasters import read_header
from ann.errors import DatasetError, SceneError

# Damaged JPEG data is only a warning to GDAL, which then gives grey pixels.
GDAL_SETTINGS = {"GDAL_ERROR_ON_LIBJPEG_WARNING": "YES"}


class FileScene:
    """A GeoTIFF, JPEG, PNG or anything else that GDAL reads; a context manager that closes the file.

    bands: numbers from 1, in the order used for training; None takes all, without an alpha band at the end.
    A cell has data where all of these bands have (no-data value, mask, alpha band, NaN).
    `transform` (affine) and `crs` are rasterio's, None where the file has no georeference.

    Raises:
        SceneError: the file can't be opened or is cut short, or a band does not exist; also from `read`.
    """

    def __init__(self, path: str | Path, bands: Sequence[int] | None = None):
        self.name = str(path)
        try:
            header = read_header(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._source = rasterio.open(path)
        except (DatasetError, RasterioError, OSError) as error:
            raise SceneError(str(error)) from error
        self.height, self.width = header.height, header.width
        self._bands = list(range(1, header.bands + 1)) if bands is None else [int(band) for band in bands]
        wrong = [band for band in self._bands if not 1 <= band <= self._source.count]
        if wrong or not self._bands:
            self.close()
            raise SceneError(
                f"Image {path} has bands 1 to {self._source.count}, asked for {wrong or 'none'}. Give others."
            )
        self.bands = len(self._bands)
        self.transform = None if self._source.transform.is_identity else self._source.transform
        self.crs = self._source.crs
        flags = [self._source.mask_flag_enums[band - 1] for band in self._bands]
        # GDAL takes an alpha band as mask only beside one or three others, so it is read here.
        last = self._source.count
        alpha = last > 1 and self._source.colorinterp[-1].name == "alpha" and last not in self._bands
        self._alpha = last if alpha else None
        self._masked = any(flag.name != "all_valid" for band_flags in flags for flag in band_flags)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, bands) of the file's type and (height, width) bool, False without data."""
        window = Window(column, row, width, height)
        valid = np.ones((height, width), dtype=bool)
        try:
            with rasterio.Env(**GDAL_SETTINGS):
                pixels = np.moveaxis(self._source.read(self._bands, window=window), 0, -1)
                if self._masked:
                    valid = np.all(self._source.read_masks(self._bands, window=window) != 0, axis=0)
                if self._alpha is not None:
                    valid &= self._source.read(self._alpha, window=window) != 0
        except (RasterioError, OSError) as error:
            raise SceneError(
                f"Image {self.name} can't be read at rows {row} to {row + height} "
                f"({error.__cause__ or error}). It may be truncated or damaged: replace it or leave it out."
            ) from error
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=-1)
        return pixels, valid

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> FileScene:
        return self

    def __exit__(self, *details) -> None:
        self.close()
