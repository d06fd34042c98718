"""Windows of raster maps to tell the classes of, as a raster map with a cell for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ann.data.example import Example
from ann.grass.bands import CELL_NULL
from ann.grass.chips import SceneChips, chip_windows
from ann.grass.exchange import FinishedMap
from ann.grass.raster_output import RasterWriter, finish_class_raster, finish_score_raster
from ann.grass.reader import READER
from ann.grass.region import Grid, use_grid
from ann.grass.sources import Source
from ann.grass.temporary import TemporaryMaps
from classifier.config import ClassifierConfig
from classifier.inference import Told


def window_grid(grid: Grid, step: float) -> Grid:
    """The cells of the result: squares of `step` map units from the corner of a grid on, over all of it."""
    rows, columns = (
        max(1, int(np.ceil(count * size / step - 1e-6)))
        for count, size in ((grid.rows, grid.row_size), (grid.columns, grid.column_size))
    )
    return Grid(north=grid.north, west=grid.west, rows=rows, columns=columns, row_size=step, column_size=step)


class MapWindows:
    """Windows, `side` map units wide, around the cells of a coarser grid; see `Work`."""

    readers = 1

    def __init__(self, source: Source, config: ClassifierConfig, output: str, side: float, step: float):
        self._source, self._config, self._output = source, config, output
        self._grid = window_grid(source.grid, step)
        self._side = side
        self._maps: dict[str, str] = {}

    def __len__(self) -> int:
        return self._grid.rows * self._grid.columns

    def name(self, index: int) -> str:
        """The place of a window."""
        x, y = self._grid.coordinates(*divmod(index, self._grid.columns))
        return f"window at {x:.10g}, {y:.10g}"

    @contextmanager
    def opened(self, temporary: TemporaryMaps) -> Iterator[None]:
        """See `Work`."""
        source = self._source
        self._maps = {kind: temporary.raster(kind) for kind in ("class", "probability")}
        with READER.scene(source.bands, source.grid, source.name) as self._scene:
            yield

    def read(self, index: int) -> Example | None:
        """See `Work`."""
        row, column = divmod(index, self._grid.columns)
        x, y = self._grid.coordinates(row, column)
        half = self._side / 2
        box = np.array([[x - half, y - half, x + half, y + half]])
        chips = SceneChips(self._scene, chip_windows(box, self._source.grid), max(self._config.image_shape))
        return chips.read(0)

    def take(self, told: Iterator[Told]) -> Iterator[Told]:
        """Write row by row."""
        columns = self._grid.columns
        use_grid(self._grid)
        classes = np.empty((1, columns), np.int32)
        values = np.empty((1, columns), np.float32)
        with (
            RasterWriter(self._maps["class"], self._grid) as class_map,
            RasterWriter(self._maps["probability"], self._grid, dtype=np.float32) as probability_map,
        ):
            for one in told:
                column = one.index % columns
                known = one.probabilities is not None
                classes[0, column] = one.probabilities.argmax() + 1 if known else CELL_NULL
                values[0, column] = one.probabilities.max() if known else np.nan
                if column == columns - 1:
                    class_map.write(classes)
                    probability_map.write(values)
                yield one

    def finish(self, temporary: TemporaryMaps) -> list[FinishedMap]:
        """See `Work`."""
        grid, name = self._grid, self._source.name
        finish_class_raster(
            self._maps["class"], self._config.classes, grid=grid, source=name, title="Classes of windows"
        )
        title = "Probability of the class"
        finish_score_raster(self._maps["probability"], grid=grid, source=name, title=title)
        return [
            FinishedMap(kind="raster", temporary=self._maps["class"], name=self._output),
            FinishedMap(
                kind="raster", temporary=self._maps["probability"], name=f"{self._output}_probability"
            ),
        ]
