"""Features of a vector map to tell the classes of, by what raster maps show around or inside of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grass.script as gs
import numpy as np

from ann.data.example import Example
from ann.grass.areas import LAYER
from ann.grass.attributes import connect_table
from ann.grass.bands import Band
from ann.grass.chips import SceneChips, chip_boxes, chip_windows
from ann.grass.columns import LinkedTable, table_of, write_columns
from ann.grass.database import Database
from ann.grass.exchange import FinishedMap
from ann.grass.features import Features
from ann.grass.reader import READER
from ann.grass.region import grid_environment
from ann.grass.sources import Source
from ann.grass.temporary import TemporaryMaps
from classifier.config import ClassifierConfig
from classifier.grass.told_columns import told_columns, told_values
from classifier.inference import Told


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where classes go. output: a new map with the features and their attributes; None: the map itself.

    prefix: of the names of columns. database: of the current mapset.
    """

    output: str | None
    prefix: str
    database: Database


class MapFeatures:
    """Chips around features, or the cells inside of areas; see `Work`.

    side: of chips in map units, None for as large as the features.
    """

    readers = 1

    def __init__(
        self, source: Source, features: Features, config: ClassifierConfig, side: float | None, target: Target
    ):
        self._source, self._features, self._config, self._target = source, features, config, target
        grid = source.grid
        smallest = grid.row_size * (config.image_shape[0] if features.kind == "point" else 1)
        self._windows = chip_windows(chip_boxes(features.boxes, side, smallest), grid)
        self._order = np.lexsort((self._windows[:, 1], self._windows[:, 0]))
        count = len(self._windows)
        self._leading = np.full((count, 2), -1, np.int16)  # the first two classes, from 0 on
        self._probabilities = np.zeros((count, 2), np.float32)

    def __len__(self) -> int:
        return len(self._windows)

    def name(self, index: int) -> str:
        """The category of a feature."""
        return f"category {self._features.categories[self._order[index]]}"

    @contextmanager
    def opened(self, temporary: TemporaryMaps) -> Iterator[None]:
        """See `Work`."""
        source, bands, ids = self._source, self._source.bands, None
        if self._config.inside and self._features.kind == "area":
            bands, ids = (*bands, self._area_numbers(temporary)), self._features.categories
        with READER.scene(bands, source.grid, source.name) as scene:
            self._chips = SceneChips(scene, self._windows, max(self._config.image_shape), ids)
            yield

    def read(self, index: int) -> Example | None:
        """See `Work`."""
        return self._chips.read(int(self._order[index]))

    def take(self, told: Iterator[Told]) -> Iterator[Told]:
        """Keep the two leading classes of each."""
        for one in told:
            if one.probabilities is not None:
                index = self._order[one.index]
                first = np.argsort(-one.probabilities, kind="stable")[:2]
                self._leading[index] = first
                self._probabilities[index] = one.probabilities[first]
            yield one

    def finish(self, temporary: TemporaryMaps) -> list[FinishedMap]:
        """See `Work`."""
        target, environment = self._target, grid_environment()
        columns = told_columns(self._config.classes, target.prefix)
        if target.output is None:
            write_columns(table_of(self._features.map), columns, self._rows(), temporary)
            return []
        geometry = temporary.vector("classified")
        gs.run_command("g.copy", vector=f"{self._features.map},{geometry}", env=environment)
        table = self._own_table(geometry, temporary)
        write_columns(table, columns, self._rows(), temporary)
        gs.vector_history(geometry, env=environment)
        return [
            FinishedMap(
                kind="vector",
                temporary=geometry,
                name=target.output,
                table=table.link.table,
                features=len(self),
            )
        ]

    def _own_table(self, geometry: str, temporary: TemporaryMaps) -> LinkedTable:
        """The table of a copied map, called after what the map will be; a new one if it has none."""
        database, copied = self._target.database, table_of(geometry)
        if copied is None:
            name, key = database.create_table(self._target.output, "cat INTEGER", temporary), "cat"
        else:
            name = database.rename_table(copied.link.table, self._target.output, temporary)
            # not before: by its link the table goes with an abandoned copy until `temporary` knows it
            gs.run_command("v.db.connect", map=geometry, layer=LAYER, flags="d", env=grid_environment())
            key = copied.key
        connect_table(geometry, database, name, key)
        return table_of(geometry)

    def _rows(self) -> Iterator[tuple[int, list[str | float | None]]]:
        classes = self._config.classes
        for category, leading, values in zip(
            self._features.categories.tolist(), self._leading, self._probabilities, strict=True
        ):
            yield category, told_values(leading, values, classes)

    def _area_numbers(self, temporary: TemporaryMaps) -> Band:
        """A raster map with the category of the area that each cell is in."""
        name = temporary.raster("areas")
        gs.run_command(
            "v.to.rast",
            input=self._features.map,
            type="area",
            use="cat",
            output=name,
            env=grid_environment(self._source.grid),
        )
        return Band(name=name, mapset=gs.gisenv()["MAPSET"], grid=self._source.grid, dtype=np.dtype(np.int32))
