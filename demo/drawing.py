"""Draws overhead scenes with known objects, for the demo and for the tests.

A scene has bare and grown ground, buildings (rectangular and L-shaped, with a ridge and a shadow) and
storage tanks (round, bright). Buildings may touch each other. Everything follows from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy import ndimage

CLASSES = ("building", "tank")
CRS = "EPSG:32633"
PIXEL_SIZE = 0.5  # metres
SPACING = 5000.0  # map units between the training scenes
ORIGIN = (460000.0, 5550000.0)  # west, north


@dataclass(frozen=True, kw_only=True)
class DrawnScene:
    """An image and the truth about it.

    `image` is (height, width, 3) uint8; `labels` (height, width) int32 holds 0 for ground and i + 1 for
    the pixels of object i; `class_names` names the class of each object.
    """

    image: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def draw_scene(*, height: int, width: int, objects: int, seed: int) -> DrawnScene:
    """Draw a scene with up to `objects` objects; those that find no free place are left out."""
    random = np.random.default_rng(seed)
    image = _ground(height, width, random)
    labels = np.zeros((height, width), np.int32)
    class_names = []
    for _ in range(objects):
        class_name = CLASSES[int(random.random() < 0.4)]
        shape = _tank(random) if class_name == "tank" else _building(random)
        place = _free_place(labels, shape, random)
        if place is None:
            continue
        class_names.append(class_name)
        window = tuple(slice(start, start + size) for start, size in zip(place, shape.shape, strict=True))
        _paint(image, window, shape, class_name, random)
        labels[window][shape] = len(class_names)
    noise = random.normal(0, 4, image.shape)
    return DrawnScene(
        image=np.clip(image + noise, 0, 255).astype(np.uint8), labels=labels, class_names=tuple(class_names)
    )


def _ground(height, width, random):
    """Two kinds of ground in smooth patches, (height, width, 3) float."""
    patches = ndimage.gaussian_filter(random.normal(size=(height, width)), 24, mode="wrap")
    texture = ndimage.gaussian_filter(random.normal(size=(height, width)), 1.2, mode="wrap") * 22
    grown = (patches > 0)[..., None]
    return np.where(grown, (86.0, 112.0, 70.0), (150.0, 132.0, 108.0)) + texture[..., None]


def _building(random):
    height, width = random.integers(16, 42, 2)
    shape = np.ones((height, width), bool)
    if random.random() < 0.35:
        shape[: height // 2, : width // 2] = False
    return np.rot90(shape, random.integers(4)).copy()


def _tank(random):
    radius = random.integers(7, 16)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= (radius + 0.3) ** 2


def _free_place(labels, shape, random):
    """Upper left corner for an object, or None; a third of the objects moves up to its left neighbour."""
    limit = np.array(labels.shape) - shape.shape
    if (limit <= 0).any():
        return None

    def is_free(row, column):
        return not labels[row : row + shape.shape[0], column : column + shape.shape[1]][shape].any()

    touching = random.random() < 1 / 3
    for _ in range(30):
        row, column = (int(value) for value in random.integers(0, limit))
        if not is_free(row, column):
            continue
        moved = column
        while touching and moved > max(0, column - 60) and is_free(row, moved - 1):
            moved -= 1
        return (row, moved) if moved > 0 and not is_free(row, moved - 1) else (row, column)
    return None


def _paint(image, window, shape, class_name, random):
    shadow = tuple(slice(side.start + 3, side.stop + 3) for side in window)
    clipped = image[shadow]
    clipped[shape[: clipped.shape[0], : clipped.shape[1]]] *= 0.55
    if class_name == "tank":
        colour = np.array((222.0, 224.0, 228.0)) + random.normal(0, 6)
    else:
        roofs = ((168.0, 78.0, 60.0), (120.0, 124.0, 132.0), (190.0, 180.0, 160.0))
        colour = np.array(roofs[random.integers(3)]) + random.normal(0, 8)
    rows, columns = np.mgrid[0 : shape.shape[0], 0 : shape.shape[1]]
    shading = np.where(rows < columns * shape.shape[0] / shape.shape[1], 1.08, 0.9)
    image[window] = np.where(shape[..., None], colour * shading[..., None], image[window])


def write_geotiff(path: Path, image: np.ndarray, *, origin: tuple[float, float] = ORIGIN) -> None:
    """Write an image (height, width, bands) as a GeoTIFF in `CRS`, upper left corner at `origin`."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=image.shape[0],
        width=image.shape[1],
        count=image.shape[2],
        dtype=image.dtype,
        crs=CRS,
        transform=from_origin(*origin, PIXEL_SIZE, PIXEL_SIZE),
    ) as file:
        file.write(np.moveaxis(image, -1, 0))


def write_training_directory(directory: Path, name: str, scene: DrawnScene) -> Path:
    """Write a scene in the directory layout that the train module reads: image and a mask per object.

    Each scene of a directory lies on ground of its own, since images of the same ground aren't split.
    """
    folder = directory / name
    folder.mkdir(parents=True)
    east = ORIGIN[0] + (len(list(directory.iterdir())) - 1) * SPACING
    write_geotiff(folder / f"{name}.tif", scene.image, origin=(east, ORIGIN[1]))
    for number, class_name in enumerate(scene.class_names, 1):
        mask = np.where(scene.labels == number, 255, 0).astype(np.uint8)
        path = folder / f"{name}-{class_name}-{number}.png"
        with rasterio.open(
            path, "w", driver="PNG", height=mask.shape[0], width=mask.shape[1], count=1, dtype="uint8"
        ) as file:
            file.write(mask, 1)
    return folder
