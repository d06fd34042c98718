"""Image files as scenes, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ann.data.pixels.rasters import colour_bands, open_image, read_header, read_window, reading_errors
from ann.data.pixels.windows import Window
from ann.errors import DatasetError, SceneError


class FileScene:
    """A GeoTIFF, JPEG, PNG or anything else that GDAL reads; a context manager that closes the file.

    bands: numbers from 1, in the order used for training; None takes all, without alpha bands.
    Which cells have data `data.pixels.rasters.read_window` says, which training reads files with, too.
    `band_numbers` are those of the file, `band_descriptions` what it says of them, None for nothing.
    `transform` (affine) and `crs` are rasterio's, None where the file has no georeference.

    Raises:
        SceneError: the file can't be opened, is cut short or can't be shown as it is stored, or a band does
            not exist; also from `read`.
    """

    def __init__(self, path: str | Path, bands: Sequence[int] | None = None):
        self.name = str(path)
        self._open = ExitStack()
        try:
            header = read_header(path)
            self._source = self._open.enter_context(open_image(path))
        except DatasetError as error:
            raise SceneError(str(error)) from error
        self.height, self.width = header.height, header.width
        self._bands = colour_bands(self._source) if bands is None else [int(band) for band in bands]
        wrong = [band for band in self._bands if not 1 <= band <= self._source.count]
        if wrong or not self._bands:
            self.close()
            raise SceneError(
                f"Image {path} has bands 1 to {self._source.count}, asked for {wrong or 'none'}. Give others."
            )
        self.bands = len(self._bands)
        self.band_numbers = tuple(self._bands)
        self.band_descriptions = tuple(self._source.descriptions[band - 1] for band in self._bands)
        self.transform = None if self._source.transform.is_identity else self._source.transform
        self.crs = self._source.crs

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, bands) of the file's type and (height, width) bool, False without data."""
        window = Window(row=row, column=column, height=height, width=width)
        try:
            with reading_errors(self.name):
                pixels, valid = read_window(self._source, window, self._bands)
        except DatasetError as error:
            raise SceneError(f"Rows {row} to {row + height}: {error}") from error
        return pixels, np.ones((height, width), dtype=bool) if valid is None else valid

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    def __enter__(self) -> FileScene:
        return self

    def __exit__(self, *details) -> None:
        self.close()
