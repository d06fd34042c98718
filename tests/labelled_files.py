"""Tiny labelled images on disk, drawn by the tests that read them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

TRANSFORM = Affine(0.5, 0, 500_000, 0, -0.5, 6_000_000)  # of georeferenced images, map units


def write_raster(path: Path, image: np.ndarray, **profile) -> Path:
    """Write (H, W) or (H, W, C) as the format of the file's suffix."""
    image = image[..., None] if image.ndim == 2 else image
    height, width, bands = image.shape
    driver = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff"}[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    if driver == "GTiff":
        profile.setdefault("crs", "EPSG:32632")
        profile.setdefault("transform", TRANSFORM)
    profile.update(driver=driver, height=height, width=width, count=bands, dtype=image.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        target = rasterio.open(path, "w", **profile)
    with target:
        target.write(np.moveaxis(image, -1, 0))
    return path


def map_point(x: float, y: float) -> tuple[float, float]:
    """(easting, northing) of a place in pixels of an image at TRANSFORM."""
    return 500_000 + 0.5 * x, 6_000_000 - 0.5 * y


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask (height, width) uint8, 255 inside of the box (y1, x1, y2, x2)."""
    mask = np.zeros((height, width), np.uint8)
    mask[box[0] : box[2], box[1] : box[3]] = 255
    return mask


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """An image (height, width, bands) uint8 from 1 to 254."""
    return np.random.default_rng(seed).integers(1, 255, (height, width, bands), dtype=np.uint8)


def write_scene(
    root: Path, name: str, objects: list[tuple[str, tuple[int, int, int, int]]], size=(40, 60), seed=0
) -> Path:
    """An image directory with one mask file for each (class, box); gives the directory."""
    directory = root / name
    write_raster(directory / f"{name}.png", noise(*size, seed=seed))
    for number, (class_name, box) in enumerate(objects, start=1):
        write_raster(directory / f"{name}-{class_name}-{number}.png", rectangle(*size, box))
    return directory
