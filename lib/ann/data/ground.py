"""Which images show the same ground, so that none of it stands on both sides of a split.

What counts is where an image lies and what it shows, not what its file is called: georeferenced images that
overlap, and images of the same pixels under several names or stored in several ways, are one scene.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError  # what PROJ reports has no public class
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_coordinates

from ann.data.dataset import Dataset, LabelledImage, Place
from ann.data.pixels.rasters import open_image, read_window
from ann.data.pixels.windows import Window

MARGIN = 0.51  # pixels at each border that don't count: tiles that share a border line share no ground
PROBED_ROWS = (0.125, 0.25, 0.5, 0.75)  # of the height; the first that isn't of one value tells images apart
STRIP_PIXELS = 1 << 22  # are compared at once
WORLD = CRS.from_epsg(4326)


def join_ground(dataset: Dataset, report: Callable[[int, int], None] | None = None) -> Dataset:
    """The dataset with one `source` for all image files that show the same ground.

    report: told how many images of how many have been looked at. Time grows with the number of images (and
    with that of images that lie on one another); of each image one row is read, of those with equal rows all.

    Raises:
        DatasetError: an image can't be read.
    """
    images = (*dataset.images, *dataset.validation)
    contents = same_content(images, report)
    # Files of one content, without a georeference, lie on one another pixel by pixel.
    frames = [
        image.place or (Place(frame=content, transform=Affine.identity()) if content else None)
        for image, content in zip(images, contents, strict=True)
    ]
    groups = Groups(len(images))
    groups.join_equal([image.source for image in images])
    groups.join_equal(contents)
    for members, corners in comparable(images):
        for one, other in overlapping(corners):
            groups.join(members[one], members[other])
    joined = [
        replace(image, source=images[groups.first(index)].source, place=place)
        for index, (image, place) in enumerate(zip(images, frames, strict=True))
    ]
    count = len(dataset.images)
    return replace(dataset, images=tuple(joined[:count]), validation=tuple(joined[count:]))


class Groups:
    """Things by number that are joined into groups; a group is known by its first member."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def first(self, index: int) -> int:
        """The first member of a thing's group."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        low, high = sorted((self.first(one), self.first(other)))
        self._parent[high] = low

    def join_equal(self, keys: Sequence[str | None]) -> None:
        """Make one group of all things with the same key; None is like no other."""
        seen: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key is not None:
                self.join(seen.setdefault(key, index), index)


def same_content(
    images: Sequence[LabelledImage], report: Callable[[int, int], None] | None = None
) -> list[str | None]:
    """For each image a text that it shares with those of the same pixels; None where there are no others.

    Raises:
        DatasetError: an image can't be read.
    """
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        rows = []
        for row in workers.map(_telling_row, images):
            rows.append(row)
            if report:
                report(len(rows), len(images))
        suspects = _members(rows)
        whole = dict(zip(suspects, workers.map(lambda index: _digest(images[index]), suspects), strict=True))
    digests = [whole.get(index) for index in range(len(images))]
    alike = set(_members(digests))
    return [digest if index in alike else None for index, digest in enumerate(digests)]


def _members(keys: Sequence[str | None]) -> list[int]:
    """Indices of the keys that occur more than once."""
    count: dict[str, int] = {}
    for key in keys:
        if key is not None:
            count[key] = count.get(key, 0) + 1
    return [index for index, key in enumerate(keys) if key is not None and count[key] > 1]


def _telling_row(image: LabelledImage) -> str | None:
    """Size and pixels of the first probed row that isn't of one value, in short; None where all are."""
    with open_image(image.path) as source:
        for place in PROBED_ROWS:
            window = Window(row=int(place * image.height), column=0, height=1, width=image.width)
            pixels, _ = read_window(source, window)
            if (pixels != pixels[:, :1]).any():
                return f"{image.height} {image.width} {_hash(pixels).hexdigest()}"
    return None


def _digest(image: LabelledImage) -> str:
    digest = hashlib.blake2b(f"{image.height} {image.width}".encode(), digest_size=16)
    rows = max(1, STRIP_PIXELS // image.width)
    with open_image(image.path) as source:
        for row in range(0, image.height, rows):
            strip = Window(row=row, column=0, height=min(rows, image.height - row), width=image.width)
            digest.update(_hash(read_window(source, strip)[0]).digest())
    return digest.hexdigest()


def _hash(pixels: np.ndarray):
    """Of the values, whatever their type."""
    return hashlib.blake2b(np.ascontiguousarray(pixels, dtype=np.float64).tobytes(), digest_size=16)


def overlapping(corners: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of four-cornered, convex areas that have more than a border in common.

    corners: (N, 4, 2), in order around each area. Of areas with the same corners each is paired with the
    first one alone. An area is compared with those that touch the same cells of a grid, of about its size or
    that of larger ones: time grows with the number of areas and of those that lie on one another.
    """
    low, high = corners.min(axis=1), corners.max(axis=1)
    aligned = (((corners == low[:, None]) | (corners == high[:, None])).all(axis=2)).all(axis=1)
    levels = np.ceil(np.log2(np.maximum((high - low).max(axis=1), 1e-12))).astype(int).tolist()
    seen: dict[bytes, int] = {}
    grids: dict[int, dict[tuple[int, int], list[int]]] = {}  # by the binary logarithm of the cells' side
    for index in sorted(range(len(corners)), key=lambda index: -levels[index]):  # from large to small
        first = seen.setdefault(corners[index].tobytes(), index)
        if first != index:
            yield first, index
            continue
        own = grids.setdefault(levels[index], {})
        near: set[int] = set()
        for level, grid in grids.items():
            for cell in _cells(low[index], high[index], 2.0**level):
                near.update(grid.get(cell, ()))
        for other in near:
            boxes = (low[index] < high[other]).all() and (low[other] < high[index]).all()
            if boxes and ((aligned[index] and aligned[other]) or _intersect(corners[index], corners[other])):
                yield other, index
        for cell in _cells(low[index], high[index], 2.0 ** levels[index]):
            own.setdefault(cell, []).append(index)


def _cells(low: np.ndarray, high: np.ndarray, side: float) -> list[tuple[int, int]]:
    """The cells of a grid that a box touches."""
    (x1, y1), (x2, y2) = np.floor(low / side).astype(int).tolist(), np.floor(high / side).astype(int).tolist()
    return [(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)]


def _intersect(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two convex areas (4, 2) overlap: no side of either separates them."""
    for area in (one, other):
        sides = np.roll(area, -1, axis=0) - area
        normals = np.stack([-sides[:, 1], sides[:, 0]], axis=1)
        a, b = normals @ one.T, normals @ other.T
        if ((a.max(axis=1) <= b.min(axis=1)) | (b.max(axis=1) <= a.min(axis=1))).any():
            return False
    return True


def comparable(images: Sequence[LabelledImage]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Sets of georeferenced images whose places can be compared: their indices and corners (N, 4, 2).

    Several coordinate systems are brought to longitude and latitude; an image without one is taken to lie in
    the only one that the others have. The outermost half pixels are left out.
    """
    by_frame: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        if image.place is not None:
            by_frame.setdefault(image.place.frame, []).append(index)
    systems = [frame for frame in by_frame if frame]
    sets: dict[str, list[tuple[list[int], np.ndarray]]] = {}
    for frame, members in by_frame.items():
        corners = np.array([_corners(images[index]) for index in members])
        name = frame or (systems[0] if len(systems) == 1 else "")
        if frame and len(systems) > 1:
            try:
                xs, ys = transform_coordinates(CRS.from_wkt(frame), WORLD, *corners.reshape(-1, 2).T)
                corners, name = np.stack([xs, ys], axis=-1).reshape(-1, 4, 2), "longitude and latitude"
            except (RasterioError, CPLE_BaseError):
                pass  # no system on earth: its images are compared with one another
        sets.setdefault(name, []).append((members, corners))
    for parts in sets.values():
        members = [index for part, _ in parts for index in part]
        corners = np.concatenate([found for _, found in parts])
        known = np.isfinite(corners).all(axis=(1, 2))
        yield [index for index, is_known in zip(members, known, strict=True) if is_known], corners[known]


def _corners(image: LabelledImage) -> np.ndarray:
    """(4, 2) in the coordinates of the image's place."""
    x1, y1, x2, y2 = MARGIN, MARGIN, image.width - MARGIN, image.height - MARGIN
    matrix = np.array(image.place.transform).reshape(3, 3)
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) @ matrix[:2, :2].T + matrix[:2, 2]
