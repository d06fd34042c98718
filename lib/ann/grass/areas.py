"""Areas of vector maps and their attributes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import grass.lib.vector as libvector
import grass.script as gs
import numpy as np
import shapely

from ann.data.longitudes import TURNS
from ann.errors import DatasetError
from ann.grass.maps import find_map
from ann.grass.region import LIBRARY_LOCK, Grid, grid_environment, is_latitude_longitude

LAYER = 1
BUILT = 2  # the level of topology at which a map has areas


@dataclass(frozen=True, kw_only=True, eq=False)
class Area:
    """One area of a vector map; areas of a map never overlap.

    categories: in layer 1, several where polygons overlapped before the map was made; empty for an area
    that belongs to nothing, such as a hole.
    rings: (n, 2) float64, map coordinates (easting, northing), the outer one first, then those of holes.
    """

    categories: tuple[int, ...]
    rings: tuple[np.ndarray, ...]

    @property
    def extent(self) -> Grid:
        """The area's box as a grid of one cell."""
        (west, south), (east, north) = self.rings[0].min(axis=0), self.rings[0].max(axis=0)
        return Grid(
            north=float(north),
            west=float(west),
            rows=1,
            columns=1,
            row_size=float(north - south),
            column_size=float(east - west),
        )

    def moved(self, east: float) -> Area:
        """The same area further east, in map units."""
        return replace(self, rings=tuple(ring + np.array([east, 0.0]) for ring in self.rings))

    def pixel_rings(self, grid: Grid) -> tuple[np.ndarray, ...]:
        """The rings as (x, y) in cells of a grid; (0, 0) is its north-west corner."""
        corner, size = (grid.west, grid.north), (grid.column_size, -grid.row_size)
        return tuple((ring - corner) / size for ring in self.rings)


def find_vector(full_name: str) -> str:
    """`name@mapset` of a vector map given as `name` or `name@mapset`.

    Raises:
        AnnError: there is none.
    """
    return "@".join(find_map("Vector", full_name))


def read_areas(full_name: str, grids: Sequence[Grid] | None = None) -> list[Area]:
    """All areas of a map whose box meets one of these grids, in the order of their numbers; None: all.

    In degrees a box meets a grid too that lies a turn around the Earth away (see `turns`).

    Memory is that of their outlines, and while it is read that of the map's topology.

    Raises:
        DatasetError: the map has no topology or no areas at all.
    """
    name, _, mapset = full_name.partition("@")
    found = []
    everywhere = grids is None
    corners = np.array([(grid.west, grid.south) for grid in grids or ()]).reshape(-1, 2)
    opposite = np.array([(grid.east, grid.north) for grid in grids or ()]).reshape(-1, 2)
    tree, ways = shapely.STRtree(shapely.box(*corners.T, *opposite.T)), turns()

    def meets(west: float, south: float, east: float, north: float) -> bool:
        near = tree.query(shapely.box(west, south, east, north))  # those that touch, too
        return bool(((corners[near] < (east, north)) & (opposite[near] > (west, south))).all(axis=1).any())

    with LIBRARY_LOCK:
        vector = ctypes.pointer(libvector.Map_info())
        libvector.Vect_set_open_level(BUILT)
        if libvector.Vect_open_old2(vector, name.encode(), mapset.encode(), str(LAYER).encode()) < BUILT:
            raise DatasetError(f"Vector map <{full_name}> can't be opened. Run v.build map={full_name}")
        points, categories = libvector.Vect_new_line_struct(), libvector.Vect_new_cats_struct()
        box = libvector.bound_box()
        try:
            count = libvector.Vect_get_num_areas(vector)
            for number in range(1, count + 1):
                libvector.Vect_get_area_box(vector, number, ctypes.byref(box))
                if everywhere or any(meets(box.W + turn, box.S, box.E + turn, box.N) for turn in ways):
                    rings = _rings(vector, number, points)
                    if len(rings[0]) > 3:
                        found.append(Area(categories=_categories(vector, number, categories), rings=rings))
        finally:
            libvector.Vect_destroy_line_struct(points)
            libvector.Vect_destroy_cats_struct(categories)
            libvector.Vect_close(vector)
    if not count:
        _check_empty(full_name)
    return found


def turns() -> tuple[float, ...]:
    """What may be added to an easting without changing the place: 0, and in degrees a turn either way."""
    return TURNS if is_latitude_longitude() else (0.0,)


def read_columns(full_name: str) -> tuple[str, dict[str, dict[int, object]]]:
    """Name of the key column, and for each column its values by category; no columns without a table."""
    connection = gs.vector_db(full_name, env=grid_environment()).get(LAYER)
    if connection is None:
        return "cat", {}
    text = gs.read_command(
        "v.db.select", map=full_name, layer=LAYER, format="json", env=grid_environment(), quiet=True
    )
    try:
        rows = json.loads(text, strict=False)["records"] if text.strip() else []
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"The attribute table of <{full_name}> can't be read ({error}). Try v.db.select map={full_name}"
        ) from error
    key = connection["key"]
    columns = gs.vector_columns(full_name, LAYER, getDict=False, env=grid_environment())
    values = {name: {int(row[key]): row.get(name) for row in rows} for name in columns}
    return key, values


def _rings(vector: object, number: int, points: object) -> tuple[np.ndarray, ...]:
    libvector.Vect_get_area_points(vector, number, points)
    rings = [_copy(points)]
    for hole in range(libvector.Vect_get_area_num_isles(vector, number)):
        libvector.Vect_get_isle_points(vector, libvector.Vect_get_area_isle(vector, number, hole), points)
        rings.append(_copy(points))
    return tuple(rings)


def _copy(points: object) -> np.ndarray:
    line = points.contents
    copied = np.empty((line.n_points, 2))
    for axis, values in enumerate((line.x, line.y)):
        copied[:, axis] = np.frombuffer(ctypes.string_at(values, 8 * line.n_points))
    return copied


def _categories(vector: object, number: int, categories: object) -> tuple[int, ...]:
    if libvector.Vect_get_area_cats(vector, number, categories) != 0:  # an area without a centroid
        return ()
    found = categories.contents
    return tuple(dict.fromkeys(found.cat[i] for i in range(found.n_cats) if found.field[i] == LAYER))


def _check_empty(full_name: str) -> None:
    """An empty map is one without labels; one with lines or points only is a mistake."""
    counts = gs.vector_info_topo(full_name, env=grid_environment())
    others = {kind: counts[kind] for kind in ("points", "lines", "boundaries") if counts[kind]}
    if others:
        held = ", ".join(f"{count} {kind}" for kind, count in others.items())
        raise DatasetError(
            f"Vector map <{full_name}> has no areas but {held}. Give a map of areas: closed boundaries with "
            "a centroid each (v.type and v.centroids make them of closed lines)"
        )
