"""Grids of cells, and environments that work in them while the user's region stays as it is.

A process of GRASS has a window; child processes take theirs from `GRASS_REGION`. A `Grid` provides both.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from dataclasses import dataclass, replace

import grass.lib.gis as libgis
import grass.lib.raster as libraster
import grass.script as gs

from ann.errors import SceneError

# The C library keeps its state in globals: scenes are read and maps are written by different threads.
LIBRARY_LOCK = threading.RLock()
# A process forked while another thread reads would wait for that thread for ever.
os.register_at_fork(
    before=LIBRARY_LOCK.acquire, after_in_parent=LIBRARY_LOCK.release, after_in_child=LIBRARY_LOCK.release
)

LATITUDE_LONGITUDE = 3  # PROJECTION_LL
FULL_CIRCLE = 360.0  # degrees
ALIGNMENT = 1e-6  # cells; extents closer than this to a border of cells are on it


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows and columns of cells: the north-west corner, how many, and their size in map units."""

    north: float
    west: float
    rows: int
    columns: int
    row_size: float  # north-south resolution
    column_size: float  # east-west resolution

    @property
    def south(self) -> float:
        return self.north - self.rows * self.row_size

    @property
    def east(self) -> float:
        return self.west + self.columns * self.column_size

    def same_cells(self, other: Grid) -> bool:
        """Whether both grids have the same cells, up to rounding of their coordinates."""
        return (self.rows, self.columns) == (other.rows, other.columns) and all(
            abs(mine - theirs) < 1e-3 * size
            for mine, theirs, size in (
                (self.north, other.north, self.row_size),
                (self.south, other.south, self.row_size),
                (self.west, other.west, self.column_size),
                (self.east, other.east, self.column_size),
            )
        )

    def overlaps(self, other: Grid) -> bool:
        """Whether the extents have more than a border in common."""
        tolerance = ALIGNMENT * min(self.row_size, self.column_size)
        return (
            self.west < other.east - tolerance
            and other.west < self.east - tolerance
            and self.south < other.north - tolerance
            and other.south < self.north - tolerance
        )

    def limited_to(self, extent: Grid) -> Grid | None:
        """The part whose cells lie at least partly inside of `extent`; None if there is none."""
        first_row = math.floor((self.north - extent.north) / self.row_size + ALIGNMENT)
        end_row = math.ceil((self.north - extent.south) / self.row_size - ALIGNMENT)
        first_column = math.floor((extent.west - self.west) / self.column_size + ALIGNMENT)
        end_column = math.ceil((extent.east - self.west) / self.column_size - ALIGNMENT)
        first_row, end_row = max(first_row, 0), min(end_row, self.rows)
        first_column, end_column = max(first_column, 0), min(end_column, self.columns)
        if end_row <= first_row or end_column <= first_column:
            return None
        return Grid(
            north=self.north - first_row * self.row_size,
            west=self.west + first_column * self.column_size,
            rows=end_row - first_row,
            columns=end_column - first_column,
            row_size=self.row_size,
            column_size=self.column_size,
        )

    def part(self, row: int, column: int, rows: int, columns: int) -> Grid:
        """Some of its rows and columns, counted from the north-west corner."""
        return replace(
            self,
            north=self.north - row * self.row_size,
            west=self.west + column * self.column_size,
            rows=rows,
            columns=columns,
        )

    def resampled(self, factor: float) -> Grid:
        """Cells `factor` times as large from the same corner on; as many as `ResampledScene` makes."""
        return Grid(
            north=self.north,
            west=self.west,
            rows=round(self.rows / factor),
            columns=round(self.columns / factor),
            row_size=self.row_size * factor,
            column_size=self.column_size * factor,
        )

    def coordinates(self, row: int, column: int) -> tuple[float, float]:
        """(x, y) of the centre of a cell."""
        return (self.west + (column + 0.5) * self.column_size, self.north - (row + 0.5) * self.row_size)


def grid_of_raster(name: str, mapset: str) -> Grid:
    """The grid of a raster map that exists."""
    header = libraster.struct_Cell_head()
    with LIBRARY_LOCK:
        libraster.Rast_get_cellhd(name.encode(), mapset.encode(), ctypes.byref(header))
    return _grid(header)


def computational_region() -> Grid:
    """The user's current region, without its third dimension."""
    header = libgis.struct_Cell_head()
    libgis.G_get_window(ctypes.byref(header))
    return _grid(header)


def use_grid(grid: Grid) -> None:
    """Make `grid` the window of this process, in which raster maps are read and written from now on.

    The region file of the mapset is not touched. No map may be open.
    """
    header = _header(grid)
    with LIBRARY_LOCK:
        libraster.Rast_set_window(ctypes.byref(header))


def grid_environment(grid: Grid | None = None) -> dict[str, str]:
    """Environment for a child process that is quiet and works in `grid` (None: in the user's region)."""
    environment = dict(os.environ)
    environment.setdefault("GRASS_VERBOSE", "0")
    if os.environ.get("GRASS_VERBOSE", "2") in ("1", "2"):
        environment["GRASS_VERBOSE"] = "0"  # the module reports progress itself
    if grid is not None:
        header = libgis.struct_Cell_head()
        libgis.G_get_window(ctypes.byref(header))
        values = {
            "proj": header.proj,
            "zone": header.zone,
            "north": repr(grid.north),
            "south": repr(grid.south),
            "east": repr(grid.east),
            "west": repr(grid.west),
            "rows": grid.rows,
            "cols": grid.columns,
            "n-s resol": repr(grid.row_size),
            "e-w resol": repr(grid.column_size),
        }
        environment["GRASS_REGION"] = ";".join(f"{key}: {value}" for key, value in values.items())
        environment.pop("WIND_OVERRIDE", None)
    return environment


def is_latitude_longitude() -> bool:
    """Whether coordinates of the project are degrees."""
    return libgis.G_projection() == LATITUDE_LONGITUDE


def around_the_earth(grid: Grid, extent: Grid) -> Grid | None:
    """As `Grid.limited_to` for degrees of longitude, which return after 360; None if no cell is in `extent`.

    The result has the longitudes of `grid`, as far as it does not cross the edge of a grid that goes around
    the earth. An extent that goes around takes all columns.

    Raises:
        SceneError: both ends of `grid` are in `extent` but not what is between them.
    """
    if extent.east - extent.west > FULL_CIRCLE - ALIGNMENT * grid.column_size:
        return grid.limited_to(replace(extent, west=grid.west, columns=1, column_size=grid.east - grid.west))
    nearest = round((grid.west - extent.west) / FULL_CIRCLE)
    turns = [replace(extent, west=extent.west + FULL_CIRCLE * (nearest + turn)) for turn in (-1, 0, 1)]
    parts = [part for part in map(grid.limited_to, turns) if part is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    parts.sort(key=lambda part: part.west)
    east, west = parts[0], parts[-1]  # the extent begins in the part that ends at the grid's eastern edge
    if grid.east - grid.west < FULL_CIRCLE - grid.column_size / 2:
        raise SceneError(
            f"The computational region ({extent.west:.10g} to {extent.east:.10g} degrees of longitude) has "
            f"both ends of a map that goes from {grid.west:.10g} to {grid.east:.10g}, but not its middle. "
            "Set it to the map (g.region raster=...), or to one of the ends"
        )
    return replace(west, columns=min(west.columns + east.columns, grid.columns))


def metres_per_map_unit() -> float | None:
    """How many metres a map unit is; None where it is no length that is known (degrees, no projection)."""
    if is_latitude_longitude() or not has_coordinate_system():
        return None
    return libgis.G_database_units_to_meters_factor() or None


def map_units() -> str:
    """What the project calls its map units, in the plural: metres, U.S. Surveyor's Feet, degrees."""
    return gs.parse_command("g.proj", flags="g", env=grid_environment()).get("units") or "map units"


def ground_size(grid: Grid) -> float | None:
    """Side of a square as large as a cell of a grid, metres on the ground; None if it is not known.

    Where map units are degrees, of a cell in the middle row.
    """
    if is_latitude_longitude():
        return cell_area(grid, grid.rows // 2) ** 0.5
    metres = metres_per_map_unit()
    return None if metres is None else metres * (grid.row_size * grid.column_size) ** 0.5


def has_coordinate_system() -> bool:
    """Whether the project has one; a project without is called XY."""
    return libgis.G_projection() != 0


def cell_area(grid: Grid, row: int) -> float:
    """Area of a cell in `row`: map units squared, or square metres where map units are degrees."""
    if not is_latitude_longitude():
        return grid.row_size * grid.column_size
    with LIBRARY_LOCK:
        libgis.G_begin_zone_area_on_ellipsoid(*_ellipsoid(), grid.column_size / 360.0)
        north = grid.north - row * grid.row_size
        return libgis.G_area_for_zone_on_ellipsoid(north, north - grid.row_size)


def _ellipsoid() -> tuple[float, float]:
    semi_major, eccentricity_squared = ctypes.c_double(), ctypes.c_double()
    libgis.G_get_ellipsoid_parameters(ctypes.byref(semi_major), ctypes.byref(eccentricity_squared))
    return semi_major.value, eccentricity_squared.value


def _header(grid: Grid):
    header = libraster.struct_Cell_head()
    libgis.G_get_window(ctypes.byref(header))  # projection, zone and the third dimension
    header.north, header.south = grid.north, grid.south
    header.west, header.east = grid.west, grid.east
    header.rows, header.cols = grid.rows, grid.columns
    header.ns_res, header.ew_res = grid.row_size, grid.column_size
    return header


def _grid(header) -> Grid:
    return Grid(
        north=header.north,
        west=header.west,
        rows=header.rows,
        columns=header.cols,
        row_size=header.ns_res,
        column_size=header.ew_res,
    )
