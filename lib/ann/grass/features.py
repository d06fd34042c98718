"""Features of vector maps, areas or points, by category: where they lie, many at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import grass.lib.vector as libvector
import numpy as np

from ann.errors import DatasetError
from ann.grass.areas import BUILT, LAYER
from ann.grass.region import LIBRARY_LOCK


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The features of a map; all areas or points of a category are one.

    kind: "area" or "point". categories: (N,) int64, ascending.
    boxes: (N, 4) float64, (west, south, east, north), map units; of a point its place twice.
    parts: (M,) int64 numbers of the areas or points of all features, one after the other; starts: (N + 1,)
        where those of each begin.
    without: how many areas or points have no category and are no feature.
    """

    map: str
    kind: str
    categories: np.ndarray
    boxes: np.ndarray
    parts: np.ndarray
    starts: np.ndarray
    without: int


def read_features(full_name: str) -> Features:
    """All features of a map (`name@mapset`): its areas, or the points of a map without.

    Memory is about 100 bytes for each, and while it is read that of the map's topology.

    Raises:
        DatasetError: the map has no topology, or areas or points but none with a category.
    """
    with _opened(full_name) as vector:
        areas = libvector.Vect_get_num_areas(vector)
        read = _read_areas if areas else _read_points
        categories, boxes, numbers, without = read(vector)
    if without and not len(categories):
        raise DatasetError(
            f"Vector map <{full_name}> has no {'areas' if areas else 'points'} with a category in layer "
            f"{LAYER}. Add them with v.category"
        )
    order = np.argsort(categories, kind="stable")
    kept, starts = np.unique(categories[order], return_index=True)
    boxes = boxes[order]
    joined = np.empty((len(kept), 4))
    for column, extreme in enumerate((np.minimum, np.minimum, np.maximum, np.maximum) if len(kept) else ()):
        joined[:, column] = extreme.reduceat(boxes[:, column], starts)
    return Features(
        map=full_name,
        kind="area" if areas else "point",
        categories=kept,
        boxes=joined,
        parts=numbers[order],
        starts=np.append(starts, len(order)),
        without=without,
    )


class _opened:
    """A vector map, open for reading while the library is held."""

    def __init__(self, full_name: str):
        self._full_name = full_name

    def __enter__(self):
        name, _, mapset = self._full_name.partition("@")
        LIBRARY_LOCK.acquire()
        self._vector = ctypes.pointer(libvector.Map_info())
        libvector.Vect_set_open_level(BUILT)
        layer = str(LAYER).encode()
        if libvector.Vect_open_old2(self._vector, name.encode(), mapset.encode(), layer) < BUILT:
            LIBRARY_LOCK.release()
            raise DatasetError(
                f"Vector map <{self._full_name}> can't be opened. Run v.build map={self._full_name}"
            )
        return self._vector

    def __exit__(self, *exception):
        libvector.Vect_close(self._vector)
        LIBRARY_LOCK.release()


def _read_areas(vector):
    categories = libvector.Vect_new_cats_struct()
    box = libvector.bound_box()

    def place(number: int) -> tuple[float, float, float, float]:
        libvector.Vect_get_area_box(vector, number, ctypes.byref(box))
        return box.W, box.S, box.E, box.N

    def has_categories(number: int) -> bool:
        return libvector.Vect_get_area_cats(vector, number, categories) == 0

    return _collect(range(1, libvector.Vect_get_num_areas(vector) + 1), categories, has_categories, place)


def _read_points(vector):
    points, categories = libvector.Vect_new_line_struct(), libvector.Vect_new_cats_struct()
    lines = range(1, libvector.Vect_get_num_lines(vector) + 1)
    numbers = [one for one in lines if libvector.Vect_get_line_type(vector, one) == libvector.GV_POINT]

    def place(number: int) -> tuple[float, float, float, float]:
        x, y = points.contents.x[0], points.contents.y[0]
        return x, y, x, y

    def has_categories(number: int) -> bool:
        return libvector.Vect_read_line(vector, points, categories, number) > 0

    try:
        return _collect(numbers, categories, has_categories, place)
    finally:
        libvector.Vect_destroy_line_struct(points)


def _collect(
    numbers, categories, has_categories: Callable[[int], bool], place: Callable[[int], tuple[float, ...]]
):
    """Categories (M,), boxes (M, 4) and numbers (M,) of all parts, and how many have no category.

    has_categories: reads those of a number into `categories`.
    """
    found: list[int] = []
    boxes: list[tuple[float, ...]] = []
    of: list[int] = []
    without = 0
    for number in numbers:
        cats = []
        if has_categories(number):
            held = categories.contents
            cats = list(dict.fromkeys(held.cat[i] for i in range(held.n_cats) if held.field[i] == LAYER))
        without += not cats
        for category in cats:
            found.append(category)
            boxes.append(place(number))
            of.append(number)
    libvector.Vect_destroy_cats_struct(categories)
    return (
        np.array(found, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(of, dtype=np.int64),
        without,
    )
