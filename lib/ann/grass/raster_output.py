"""Instances, their classes and scores as raster maps."""

from __future__ import annotations

import colorsys
import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import grass.lib.raster as libraster
import grass.script as gs
import numpy as np
from grass.pygrass.raster import RasterRow
from grass.pygrass.raster.buffer import Buffer

from ann.grass.bands import CELL_NULL
from ann.grass.instances import InstanceTable
from ann.grass.region import LIBRARY_LOCK, Grid, grid_environment, use_grid
from ann.grass.temporary import TemporaryMaps

# GRASS reads labels in quadratic time, and most modules read them: r.info takes 5 s with 20,000, 31 s with
# 50,000.
LABEL_LIMIT = 10_000


class RasterWriter:
    """Writes a new raster map of the current mapset from top to bottom, in the output window of the process.

    The map appears when all went well; after an error nothing of it stays. Uses the C library, because
    `RasterRow` takes the size of a new map from the window that maps are read in.
    """

    def __init__(self, name: str, grid: Grid, *, dtype: type = np.int32):
        self._name = name
        self._grid = grid
        self._dtype = dtype
        self._type = libraster.CELL_TYPE if dtype == np.int32 else libraster.FCELL_TYPE
        self._rows_written = 0

    def __enter__(self) -> RasterWriter:
        with LIBRARY_LOCK:
            self._file = libraster.Rast_open_new(self._name.encode(), self._type)
        return self

    def write(self, values: np.ndarray) -> None:
        """Append rows: (rows, columns); CELL_NULL or NaN is NULL."""
        values = np.ascontiguousarray(values, dtype=self._dtype)
        if values.shape[1:] != (self._grid.columns,):
            raise ValueError(f"Expected rows of {self._grid.columns} cells, received shape {values.shape}")
        with LIBRARY_LOCK:
            for row in values:
                libraster.Rast_put_row(self._file, row.ctypes.data_as(ctypes.c_void_p), self._type)
        self._rows_written += len(values)

    def __exit__(self, exception_type, exception, traceback) -> None:
        complete = self._rows_written == self._grid.rows
        with LIBRARY_LOCK:
            if exception_type is None and complete:
                libraster.Rast_close(self._file)
            else:
                libraster.Rast_unopen(self._file)
        if exception_type is None and not complete:
            raise AssertionError(
                f"{self._rows_written} of {self._grid.rows} rows of <{self._name}> were written"
            )


def instances_to_cells(instance_ids: np.ndarray, first_category: int) -> np.ndarray:
    """Cells of the instance map: instance 1 gets the category `first_category`; NULL outside of instances."""
    return np.where(instance_ids > 0, instance_ids + (first_category - 1), CELL_NULL).astype(np.int32)


def write_lookup(source: str, target: str, grid: Grid, by_category: np.ndarray) -> None:
    """Write `target` with the value that `by_category` has for each cell of the instance map `source`.

    by_category: (categories + 1,) int32 or float32. No map may be open.
    """
    use_grid(grid)
    is_class = by_category.dtype.kind == "i"
    null = CELL_NULL if is_class else np.nan
    with RasterWriter(target, grid, dtype=np.int32 if is_class else np.float32) as writer:
        for cells in read_rows(source, grid):
            present = cells != CELL_NULL
            writer.write(np.where(present, by_category[np.where(present, cells, 0)], null)[np.newaxis])


def read_rows(name: str, grid: Grid) -> Iterator[np.ndarray]:
    """The rows of a map of integers in the window of the process, unmasked: the mask was applied before."""
    instances = RasterRow(name, gs.gisenv()["MAPSET"])
    with LIBRARY_LOCK:
        libraster.Rast_suppress_masking()
        instances.open("r")
    try:
        buffer = Buffer((grid.columns,), "CELL")
        for row in range(grid.rows):
            with LIBRARY_LOCK:
                instances.get_row(row, buffer)
            yield np.array(buffer)
    finally:
        with LIBRARY_LOCK:
            instances.close()
            libraster.Rast_unsuppress_masking()


def finish_instance_raster(
    name: str,
    table: InstanceTable,
    classes: Sequence[str],
    *,
    grid: Grid,
    source: str,
    temporary: TemporaryMaps,
) -> None:
    """Labels "class score", random colours and the history of an instance map."""
    environment = grid_environment(grid)
    if 0 < len(table) <= LABEL_LIMIT:
        path = Path(temporary.file("labels"))
        with path.open("w", encoding="utf-8") as labels:
            for category, class_id, score in zip(
                table.categories, table.class_ids, table.scores, strict=True
            ):
                labels.write(f"{category}\t{_label(classes[class_id - 1])} {score:.3f}\n")
        gs.run_command("r.category", map=name, rules=str(path), separator="tab", env=environment)
    elif len(table):
        gs.message(
            f"The {len(table)} instances of {source} get no labels, which would make the raster map slow. "
            "The vector maps' tables and the class and score rasters have what they would say"
        )
    if len(table):
        gs.run_command("r.colors", map=name, color="random", env=environment)
    _describe(name, "Detected instances", source, environment)


def finish_class_raster(
    name: str,
    classes: Sequence[str],
    *,
    grid: Grid,
    source: str,
    title: str = "Classes of detected instances",
    background: str | None = None,
) -> None:
    """Labels, one colour per class, and the history of a map of class ids.

    background: what to call 0, which is white; None: the map has none.
    """
    environment = grid_environment(grid)
    names = dict(enumerate(classes, 1)) | ({} if background is None else {0: background})
    labels = "".join(f"{class_id}\t{_label(name)}\n" for class_id, name in names.items())
    gs.write_command(
        "r.category", map=name, rules="-", separator="tab", stdin=labels.encode(), env=environment
    )
    colors = "" if background is None else "0 white\n"
    for class_id in range(1, len(classes) + 1):
        red, green, blue = (round(255 * part) for part in class_color(class_id, len(classes)))
        colors += f"{class_id} {red}:{green}:{blue}\n"
    gs.write_command("r.colors", map=name, rules="-", stdin=colors.encode(), env=environment)
    _describe(name, title, source, environment)


def finish_score_raster(
    name: str, *, grid: Grid, source: str, title: str = "Scores of detected instances"
) -> None:
    """Colours and the history of a map of scores."""
    environment = grid_environment(grid)
    gs.write_command(
        "r.colors", map=name, rules="-", stdin=b"0 68:1:84\n0.5 33:145:140\n1 253:231:37\n", env=environment
    )
    _describe(name, title, source, environment)


def class_color(class_id: int, class_count: int) -> tuple[float, float, float]:
    """(red, green, blue), 0 to 1; evenly spaced hues, the same for each run."""
    return colorsys.hsv_to_rgb((class_id - 1) / max(class_count, 1), 0.75, 0.9)


def _label(text: str) -> str:
    """Text without the tabs and ends of lines that separate labels."""
    return " ".join(text.split())


def _describe(name: str, title: str, source: str, environment: dict[str, str]) -> None:
    gs.run_command(
        "r.support",
        map=name,
        title=title,
        source1=source[:79],
        history=os.environ["CMDLINE"],
        env=environment,
    )
