"""Prediction in one scene, from bands or a file to maps that lack their names only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from ann.cluster.tiles import ClusterWorkers, workers_at
from ann.errors import SceneError
from ann.grass.bands import CELL_NULL
from ann.grass.database import Database
from ann.grass.exchange import FinishedMap
from ann.grass.raster_output import RasterWriter, finish_class_raster, finish_score_raster
from ann.grass.region import Grid, cell_area, use_grid
from ann.grass.sources import Source, open_source, scene_file
from ann.grass.temporary import TemporaryMaps
from ann.inference.cells import CellSettings, Part, Rows, cut_part, predict_cells
from ann.inference.tile_rows import Report, Workers
from unet.classes import CellOutput
from unet.grass.areas import finish_areas, make_areas


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be written of each scene.

    output: what is kept of the probabilities. resolution: map units, None for the scenes' own cells.
    minimum_area, regularize: of vector areas, see `make_areas`; database: for their tables.
    """

    classes: tuple[str, ...]
    output: CellOutput
    resolution: float | None = None
    minimum_area: float | None = None
    regularize: float | None = None
    database: Database | None = None


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """What became of a scene.

    cells, areas: by class id, the background first; areas in map units squared (square metres for degrees).
    maps: complete but for their names. error: why there are none.
    """

    name: str
    cells: tuple[int, ...] = ()
    areas: tuple[float, ...] = ()
    maps: tuple[FinishedMap, ...] = ()
    seconds: float = 0.0
    error: str | None = None


Key = tuple[str, int]  # what a map shows (an output_type), and the class id, 0 for all classes


@dataclass(frozen=True, kw_only=True)
class ScenePredictor:
    """Predicts scenes with the same workers."""

    workers: Workers | ClusterWorkers
    settings: CellSettings
    wanted: Wanted
    temporary: TemporaryMaps

    def predict(self, source: Source, names: Mapping[Key, str], report: Report) -> SceneResult:
        """Predict a scene. names: of its maps.

        Raises:
            SceneError: the scene can't be read, or no cell of it has data.
        """
        start = time.perf_counter()
        wanted, resolution = self.wanted, self.wanted.resolution
        maps = {key: self.temporary.raster(key[0]) for key in names}
        cells, areas = np.zeros(len(wanted.classes) + 1, np.int64), np.zeros(len(wanted.classes) + 1)
        shown, part = seen_source(source, self.settings.halo) if resolution is None else (source, None)
        with open_source(shown, resolution) as (scene, grid), ExitStack() as stack:
            part = part or Part(row=0, column=0, height=grid.rows, width=grid.columns)
            own = grid.part(part.row, part.column, part.height, part.width)
            use_grid(own)
            writers = {
                key: stack.enter_context(
                    RasterWriter(name, own, dtype=np.int32 if key[0] in ("class", "area") else np.float32)
                )
                for key, name in maps.items()
            }
            for rows in predict_cells(scene, part, self._workers(shown, part), self.settings, report):
                classes = wanted.output.classes(rows.values)
                for key, writer in writers.items():
                    writer.write(map_values(key, rows, classes, wanted.output))
                for index, line in enumerate(classes):
                    counts = np.bincount(line[rows.valid[index]], minlength=len(cells))
                    cells += counts
                    areas += counts * cell_area(own, rows.row + index)
        if not cells.any():
            self.temporary.drop(*maps.values())
            where = "in one of the bands or masked (r.mask)" if source.path is None else "or transparent"
            raise SceneError(f"no cell has data: all are NULL {where}")
        return SceneResult(
            name=source.name,
            cells=tuple(cells.tolist()),
            areas=tuple(areas.tolist()),
            maps=tuple(
                self._areas(maps[key], name, source.name, own, empty=not cells[1:].any())
                if key[0] == "area"
                else self._raster(key, maps[key], name, source.name, own)
                for key, name in names.items()
            ),
            seconds=time.perf_counter() - start,
        )

    def _workers(self, source: Source, part: Part) -> Workers:
        file = scene_file(source, self.wanted.resolution)
        if file is not None:
            file = replace(file, padding=cut_part(part, self.settings)[0])
        return workers_at(self.workers, file)

    def _raster(self, key: Key, raster: str, name: str, source: str, grid: Grid) -> FinishedMap:
        classes = self.wanted.classes
        if key[0] == "class":
            finish_class_raster(
                raster,
                classes,
                grid=grid,
                source=source,
                title="Classes of cells",
                background="" if "background" in classes else "background",
            )
        else:
            title = f"{key[0].capitalize()} of {classes[key[1] - 1]}"
            finish_score_raster(raster, grid=grid, source=source, title=title)
        return FinishedMap(kind="raster", temporary=raster, name=name)

    def _areas(self, raster: str, name: str, source: str, grid: Grid, *, empty: bool) -> FinishedMap:
        wanted, temporary = self.wanted, self.temporary
        areas = None
        if not empty:
            areas = make_areas(
                raster, grid, temporary, minimum_area=wanted.minimum_area, regularize=wanted.regularize
            )
        temporary.drop(raster)
        return finish_areas(
            areas, name, wanted.classes, source=source, database=wanted.database, temporary=temporary
        )


def map_values(key: Key, rows: Rows, classes: np.ndarray, output: CellOutput) -> np.ndarray:
    """The values of some rows in one of the maps. classes: (h, W) int16; output: what was kept."""
    kind, class_id = key
    classes = classes.astype(np.int32)  # int16 has no place for NULL
    if kind == "class":
        return np.where(rows.valid, classes, CELL_NULL)
    if kind == "area":  # the background is none
        return np.where(rows.valid & (classes > 0), classes, CELL_NULL)
    values = output.values(rows.values, deviations=kind == "deviation")
    return np.where(rows.valid, values[..., class_id if values.shape[-1] > 1 else 0], np.nan)


def seen_source(source: Source, halo: int) -> tuple[Source, Part]:
    """The scene with what the network sees around it of the map, and which part of that is wanted.

    The grid of the ground is the map's own: its first cell is (0, 0).
    """
    grid = source.grid
    if not source.bands:
        return source, Part(row=0, column=0, height=grid.rows, width=grid.columns)
    whole = source.bands[0].grid
    row = round((whole.north - grid.north) / whole.row_size)
    column = round((grid.west - whole.west) / whole.column_size)
    inside = 0 <= row <= whole.rows - grid.rows and 0 <= column <= whole.columns - grid.columns
    if not inside:  # a map around the Earth, whose columns have no first one
        return source, Part(row=0, column=0, height=grid.rows, width=grid.columns)
    top, left = min(halo, row), min(halo, column)
    below = min(halo, whole.rows - row - grid.rows)
    right = min(halo, whole.columns - column - grid.columns)
    seen = whole.part(row - top, column - left, grid.rows + top + below, grid.columns + left + right)
    part = Part(row=top, column=left, height=grid.rows, width=grid.columns, origin=(row - top, column - left))
    return replace(source, grid=seen), part
