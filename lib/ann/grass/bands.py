"""Raster maps as the bands of a scene, read row by row."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import grass.lib.raster as libraster
import numpy as np
from grass.pygrass.raster import RasterRow
from grass.pygrass.raster.buffer import Buffer

from ann.errors import SceneError
from ann.grass.maps import find_map
from ann.grass.region import (
    LIBRARY_LOCK,
    Grid,
    around_the_earth,
    grid_of_raster,
    is_latitude_longitude,
    use_grid,
)

CELL_NULL = np.iinfo(np.int32).min
CELL_TYPES = {  # how the C library calls the type of a map
    libraster.CELL_TYPE: np.int32,
    libraster.FCELL_TYPE: np.float32,
    libraster.DCELL_TYPE: np.float64,
}


@dataclass(frozen=True, kw_only=True)
class Band:
    """A raster map that exists."""

    name: str
    mapset: str
    grid: Grid
    dtype: np.dtype  # the smallest that holds its values
    label: str | None = None  # semantic (r.semantic.label)

    def __str__(self) -> str:
        return f"{self.name}@{self.mapset}"


def find_band(full_name: str) -> Band:
    """Look up a raster map by `name` or `name@mapset`.

    Raises:
        AnnError: there is none.
    """
    name, mapset = find_map("Raster", full_name)
    return Band(
        name=name,
        mapset=mapset,
        grid=grid_of_raster(name, mapset),
        dtype=_dtype(name, mapset),
        label=semantic_label(name, mapset),
    )


def semantic_label(name: str, mapset: str) -> str | None:
    """What r.semantic.label says of a raster map that exists; None for nothing."""
    label = libraster.Rast_read_semantic_label(name.encode(), mapset.encode())
    return bytes(label).decode(errors="replace") if label else None


def find_bands(names: Sequence[str]) -> tuple[Band, ...]:
    """Look up the bands of one scene.

    Raises:
        AnnError: a map does not exist, or their extents or resolutions differ.
    """
    bands = tuple(find_band(name) for name in names)
    for band in bands[1:]:
        if not band.grid.same_cells(bands[0].grid):
            raise SceneError(
                f"The bands of a scene must have the same extent and resolution, but <{bands[0]}> has "
                f"{_describe(bands[0].grid)} and <{band}> has {_describe(band.grid)}. "
                "Align them with g.region and r.resample"
            )
    return bands


def cells_inside(band: Band, extent: Grid) -> Grid:
    """The cells of a map that lie at least partly in an extent, whichever way longitudes are counted.

    Raises:
        SceneError: there are none, or the extent leaves out a part in the middle of the map.
    """
    grid = band.grid
    grid = around_the_earth(grid, extent) if is_latitude_longitude() else grid.limited_to(extent)
    if grid is None:
        raise SceneError(
            f"Raster map <{band}> lies outside of the computational region. "
            f"Set the region to it first: g.region raster={band}"
        )
    return grid


class MapScene:
    """Bands of the same cells as one scene (the `Scene` protocol of `ann.inference`), a context manager.

    The maps' own cells are read as far as they lie in `extent`, whatever the resolution of the user's region.
    A cell is valid if no band is NULL, NaN or infinite there; the user's mask makes cells NULL. Invalid cells
    are 0. A damaged map ends the process: `reader.MapReader` keeps that from the process that detects.

    Opening it makes `grid` the window of the process, so open one scene at a time. Windows may overlap; rows
    are read once as long as none lies above the window before. Memory is that of one window in full width.
    """

    def __init__(self, bands: Sequence[Band], *, extent: Grid, name: str | None = None):
        self._maps = tuple(bands)
        self.name = name or str(self._maps[0])
        self.grid = cells_inside(self._maps[0], extent)
        self.height, self.width = self.grid.rows, self.grid.columns
        self.bands = len(self._maps)
        self.dtype = common_dtype(self._maps)
        self._rasters: list[RasterRow] = []
        self._buffers: list[Buffer] = []
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __enter__(self) -> MapScene:
        use_grid(self.grid)
        with LIBRARY_LOCK:
            for band in self._maps:
                raster = RasterRow(band.name, band.mapset)
                raster.open("r")
                self._rasters.append(raster)
                self._buffers.append(Buffer((self.width,), raster.mtype))
        return self

    def __exit__(self, *exception) -> None:
        with LIBRARY_LOCK:
            for raster in self._rasters:
                raster.close()
        self._rasters, self._buffers = [], []
        self._rows.clear()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, bands) in `dtype` and valid (height, width) bool of a window."""
        if row < 0 or column < 0 or row + height > self.height or column + width > self.width:
            raise SceneError(
                f"Expected a window inside of {self.height} x {self.width} cells, received rows {row} to "
                f"{row + height}, columns {column} to {column + width}"
            )
        for old in [cached for cached in self._rows if cached < row]:
            del self._rows[old]
        pixels = np.empty((height, width, self.bands), self.dtype)
        valid = np.empty((height, width), bool)
        for index in range(height):
            if row + index not in self._rows:
                self._rows[row + index] = self._read_row(row + index)
            values, row_valid = self._rows[row + index]
            pixels[index] = values[:, column : column + width].T
            valid[index] = row_valid[column : column + width]
        return pixels, valid

    def _read_row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, width) in `dtype`, valid (width,) bool."""
        values = np.empty((self.bands, self.width), self.dtype)
        valid = np.ones(self.width, bool)
        with LIBRARY_LOCK:
            for index, raster in enumerate(self._rasters):
                cells = np.asarray(raster.get_row(row, self._buffers[index]))
                present = cells != CELL_NULL if cells.dtype == np.int32 else np.isfinite(cells)
                valid &= present
                _check_range(self._maps[index], cells[present])
                values[index] = cells
        values[:, ~valid] = 0
        return values, valid


def common_dtype(bands: Sequence[Band]) -> np.dtype:
    """The smallest type that holds the values of all bands."""
    return np.result_type(*(band.dtype for band in bands))


def read_cells(bands: Sequence[Band], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (rows, columns, bands) in `common_dtype` and valid (rows, columns) bool of all cells of a grid.

    grid: a part of the cells of the bands, which makes it the window of the process. The maps are open only
    inside of this function, so that windows of several scenes can be read in any order, from any thread or
    process. What is valid is as in `MapScene`. GRASS unpacks whole rows of a map, whatever the grid's width.
    """
    pixels = np.empty((grid.rows, grid.columns, len(bands)), common_dtype(bands))
    valid = np.ones((grid.rows, grid.columns), bool)
    with LIBRARY_LOCK:
        use_grid(grid)
        for index, band in enumerate(bands):
            cells = _read_map(band, grid)
            present = cells != CELL_NULL if cells.dtype == np.int32 else np.isfinite(cells)
            valid &= present
            _check_range(band, cells[present])
            pixels[..., index] = np.where(present, cells, 0)
    pixels[~valid] = 0
    return pixels, valid


def _read_map(band: Band, grid: Grid) -> np.ndarray:
    """(rows, columns) int32, float32 or float64, as the map is stored."""
    handle = libraster.Rast_open_old(band.name.encode(), band.mapset.encode())
    try:
        cell_type = libraster.Rast_get_map_type(handle)
        cells = np.empty((grid.rows, grid.columns), CELL_TYPES[cell_type])
        for row in range(grid.rows):
            place = ctypes.c_void_p(cells.ctypes.data + row * cells.strides[0])
            libraster.Rast_get_row(handle, place, row, cell_type)
    finally:
        libraster.Rast_close(handle)
    return cells


def _check_range(band: Band, cells: np.ndarray) -> None:
    if band.dtype.kind != "u" or not cells.size:
        return
    low, high = int(cells.min()), int(cells.max())
    if low < 0 or high > np.iinfo(band.dtype).max:
        raise SceneError(
            f"Raster map <{band}> has values ({low} to {high}) beyond its stored range. "
            f"Update the range with: r.support -s map={band}"
        )


def _dtype(name: str, mapset: str) -> np.dtype:
    """uint8, uint16, int32, float32 or float64, by type and stored range of the map."""
    raster = RasterRow(name, mapset)
    cell_type = raster.info.mtype
    if cell_type != "CELL":
        return np.dtype(np.float32 if cell_type == "FCELL" else np.float64)
    value_range = libraster.Range()
    libraster.Rast_init_range(ctypes.byref(value_range))
    known = libraster.Rast_read_range(name.encode(), mapset.encode(), ctypes.byref(value_range)) == 1
    if not known or value_range.first_time or value_range.min < 0:
        return np.dtype(np.int32)
    for dtype in (np.uint8, np.uint16):
        if value_range.max <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int32)


def _describe(grid: Grid) -> str:
    return (
        f"{grid.rows} x {grid.columns} cells of {grid.row_size:g} x {grid.column_size:g} "
        f"from north {grid.north:.10g}, west {grid.west:.10g}"
    )
