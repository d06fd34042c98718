"""Arrays as image files in memory."""

from __future__ import annotations

import warnings

import numpy as np
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from ann.data.pixels.rasters import warning_filters
from ann.errors import DatasetError

BLOCK_SIDE = (
    256  # pixels; larger images are compressed in blocks, so that a window needs only those it touches
)


def encode_image(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, C) of any type that GDAL knows as a TIFF file, losslessly compressed."""
    height, width, bands = pixels.shape
    options = {"compress": "deflate", "predictor": 3 if pixels.dtype.kind == "f" else 2}
    if max(height, width) > BLOCK_SIDE:
        options |= {"tiled": True, "blockxsize": BLOCK_SIDE, "blockysize": BLOCK_SIDE}
    with MemoryFile() as memory:
        try:
            with warning_filters(), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                target = memory.open(
                    driver="GTiff",
                    height=height,
                    width=width,
                    count=bands,
                    dtype=pixels.dtype,
                    interleave="pixel",
                    photometric="minisblack",
                    alpha="no",
                    **options,
                )
            with target:
                target.write(np.moveaxis(pixels, -1, 0))
        except (RasterioError, TypeError, KeyError) as error:
            raise DatasetError(
                f"Pixels of type {pixels.dtype} can't be stored in shards ({error}). Convert the images."
            ) from error
        return bytes(memory.getbuffer())
