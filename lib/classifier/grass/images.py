"""Image files to tell the classes of, as a table and as a map of points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grass.script as gs
import numpy as np

from ann.data.example import Example
from ann.data.pixels.photos import open_photo
from ann.data.samples.order import evenly
from ann.errors import AnnError, SceneError
from ann.grass.attributes import MapTable, finish_vector_map, text_type
from ann.grass.database import Database
from ann.grass.exchange import FinishedMap
from ann.grass.positions import image_position
from ann.grass.region import grid_environment
from ann.grass.sources import file_bands
from ann.grass.temporary import TemporaryMaps
from classifier.config import ClassifierConfig
from classifier.grass.told_columns import told_columns, told_values
from classifier.inference import Told
from classifier.tables import Line, write_table

SAMPLED = 20  # images whose values are compared with those of training


class ImageFiles:
    """Images of a directory; see `Work`. Where they lie is kept until it is written.

    table: the file for the table, None for none. output: the map of points, None for none, with the database
    of the current mapset.
    """

    readers = 2

    def __init__(
        self,
        paths: Sequence[Path],
        config: ClassifierConfig,
        *,
        table: Path | None,
        output: str | None = None,
        database: Database | None = None,
    ):
        self._paths, self._config = tuple(paths), config
        self._table, self._output, self._database = table, output, database
        self._points: dict[int, tuple[float, float] | None] = {}
        self._told: list[tuple[int, tuple[float, float], np.ndarray]] = []  # of the images that lie somewhere
        self.without_place = 0

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """The name of the file."""
        return self._paths[index].name

    @contextmanager
    def opened(self, temporary: TemporaryMaps) -> Iterator[None]:
        """See `Work`."""
        yield

    def read(self, index: int) -> Example:
        """An image, turned as its metadata says and shrunk to what the network needs.

        Raises:
            AnnError: it can't be read, or has other bands than the model was trained on.
        """
        path = self._paths[index]
        bands = file_bands(str(path), self._config.band_labels)
        header, pixels = open_photo(path, max(self._config.image_shape), bands)
        if header.bands != self._config.bands:
            raise SceneError(
                f"It has {header.bands} bands, the model was trained on {self._config.bands}. Give images "
                "with the same bands in the same order as for training"
            )
        self._points[index] = image_position(str(path), header.place, header.height, header.width)
        image, valid = pixels()
        return Example(image=image, masks=(), class_ids=np.zeros(0, np.int32), name=path.name, valid=valid)

    def take(self, told: Iterator[Told]) -> Iterator[Told]:
        """Write the table line by line, and keep what the map needs."""
        kept = self._kept(told)
        if self._table is None:
            for one, _ in kept:
                yield one
            return
        yield from write_table(self._table, kept, self._config.classes)

    def _kept(self, told: Iterator[Told]) -> Iterator[tuple[Told, Line]]:
        for one in told:
            point = self._points.pop(one.index, None)
            if one.probabilities is not None:
                self.without_place += point is None
                if point is not None and self._output is not None:
                    self._told.append((one.index, point, one.probabilities))
            error = one.error or ("It shows no data" if one.probabilities is None else "")
            yield (
                one,
                Line(image=self.name(one.index), point=point, probabilities=one.probabilities, error=error),
            )

    def finish(self, temporary: TemporaryMaps) -> list[FinishedMap]:
        """See `Work`."""
        if self._output is None:
            return []
        if not self._told:
            gs.warning(
                f"It is not known where any of the images lies: the map <{self._output}> is not written"
            )
            return []
        environment = grid_environment()
        path = Path(temporary.file("points"))
        with path.open("w") as file:
            for category, (_, (x, y), _) in enumerate(self._told, 1):
                file.write(f"{x!r}|{y!r}|{category}\n")
        geometry = temporary.vector("points")
        gs.run_command(
            "v.in.ascii", flags="t", input=str(path), output=geometry, x=1, y=2, cat=3, env=environment
        )
        names = [self.name(index) for index, _, _ in self._told]
        kinds = {"cat": "INTEGER", "image": text_type(names)} | told_columns(self._config.classes)
        table = MapTable(
            columns=", ".join(f"{name} {kind}" for name, kind in kinds.items()),
            rows=self._rows(),
            database=self._database,
        )
        return [
            finish_vector_map(
                geometry, self._output, table, title="Classes of images", comment="", temporary=temporary
            )
        ]

    def _rows(self) -> Iterator[list[int | str | float | None]]:
        for category, (index, _, probabilities) in enumerate(self._told, 1):
            leading = np.argsort(-probabilities, kind="stable")[:2]
            values = told_values(leading, probabilities[leading], self._config.classes)
            yield [category, self.name(index), *values]

    def sample_values(self) -> np.ndarray:
        """(n, bands) float64: pixels of some of the images; those that can't be read are left out."""
        values = [np.zeros((0, self._config.bands))]
        for index in evenly(len(self._paths), SAMPLED):
            try:
                example = self.read(index)
            except AnnError:
                continue
            valid = np.ones(example.image.shape[:2], bool) if example.valid is None else example.valid
            values.append(example.image[valid][::50].astype(np.float64))
        return np.concatenate(values)
