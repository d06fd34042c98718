"""Instances as vector maps: one map per class, with areas or points and an attribute table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs
import numpy as np

from ann.grass.attributes import text_type
from ann.grass.instances import InstanceTable
from ann.grass.mask import ScratchMapset, mask_is_set, scratch_mapset
from ann.grass.region import Grid, grid_environment, metres_per_map_unit
from ann.grass.temporary import TemporaryMaps

COLUMNS = (
    ("cat", "INTEGER"),
    ("class", ""),  # texts are as wide as they have to be
    ("score", "DOUBLE PRECISION"),
    ("area", "DOUBLE PRECISION"),
    ("source", ""),
)
CERTAINTY_COLUMNS = (("votes", "INTEGER"), ("spread", "DOUBLE PRECISION"))


@dataclass(frozen=True, kw_only=True)
class SceneAreas:
    """Areas of one class in one scene, in a temporary map without a table."""

    name: str
    adjoins: bool  # other scenes lie beside it, so its borders may be those of other areas too


class AreaMaps:
    """Collects the areas of scene after scene, then makes one map per class of them."""

    def __init__(self, temporary: TemporaryMaps):
        self._temporary = temporary
        self._parts: dict[int, list[SceneAreas]] = {}

    def add_scene(
        self, instance_raster: str, table: InstanceTable, grid: Grid, *, adjoins: bool = False
    ) -> None:
        """Make areas of the cells of an instance map, of the objects that are in `table`; after an error of
        none.

        adjoins: whether other scenes lie beside or over it; their objects have no cells in common with these.
        The user's mask does not count here: where it applies, it did when the scene was read, with cells
        that may have been of another size.
        """
        made: dict[int, SceneAreas] = {}
        classes = np.unique(np.asarray(table.class_ids, dtype=np.int16)).tolist()
        environment = grid_environment(grid)
        with ExitStack() as stack:
            scratch = stack.enter_context(scratch_mapset()) if mask_is_set() else None
            for class_id in classes:
                raster = instance_raster
                if len(classes) > 1 or adjoins:
                    raster = self._reclass(instance_raster, table, class_id, environment)
                areas = self._temporary.vector("areas")
                areas_of_cells(raster, areas, environment, scratch)
                if raster != instance_raster:
                    self._temporary.drop(raster)
                made[class_id] = SceneAreas(name=areas, adjoins=adjoins)
        for class_id, part in made.items():
            self._parts.setdefault(class_id, []).append(part)

    def collect(self, class_id: int) -> str | None:
        """Temporary map with all areas of a class, without a table; None if there is none.

        No two objects have a cell in common, so all that is left to do where scenes lie side by side is to
        make one boundary of two that lie on the same cells' edges.
        """
        parts = self._parts.pop(class_id, [])
        if not parts:
            return None
        merged = self._patch([part.name for part in parts]) if len(parts) > 1 else parts[0].name
        if sum(part.adjoins for part in parts) > 1:
            cleaned = self._temporary.vector("cleaned")
            gs.run_command(
                "v.clean", input=merged, output=cleaned, tool="break,rmdupl,rmdac", env=grid_environment()
            )
            self._temporary.drop(merged)
            merged = cleaned
        return merged

    def _reclass(self, raster: str, table: InstanceTable, class_id: int, environment: dict[str, str]) -> str:
        rules = Path(self._temporary.file("rules"))
        categories = np.asarray(table.categories, dtype=np.int32)[table.of_class(class_id)]
        with rules.open("w") as file:
            file.writelines(f"{category} = {category}\n" for category in categories.tolist())
        result = self._temporary.raster("class")
        gs.run_command("r.reclass", input=raster, output=result, rules=str(rules), env=environment)
        return result

    def _patch(self, names: Sequence[str]) -> str:
        patched = self._temporary.vector("patched")
        first = True
        for start in range(0, len(names), 50):  # a command line has an end
            gs.run_command(
                "v.patch",
                input=",".join(names[start : start + 50]),
                output=patched,
                flags="" if first else "a",
                overwrite=not first,
                env=grid_environment(),
            )
            first = False
        self._temporary.drop(*names)
        return patched


def areas_of_cells(
    raster: str, areas: str, environment: dict[str, str], scratch: ScratchMapset | None
) -> None:
    """Areas around the cells of a category; in a scratch mapset the mask of the current one is off."""
    options = {"flags": "vt", "output": areas, "type": "area"}
    if scratch is None:
        gs.run_command("r.to.vect", input=raster, env=environment, **options)
        return
    full_name = f"{raster}@{gs.gisenv()['MAPSET']}"
    gs.run_command("r.to.vect", input=full_name, env={**environment, **scratch.variables}, **options)
    gs.run_command("g.copy", vector=f"{areas}@{scratch.name},{areas}", env=environment)


def generalize_areas(name: str, tolerance: float, temporary: TemporaryMaps) -> str:
    """Outlines with fewer vertices, at most `tolerance` map units off; neighbours keep common borders."""
    result = temporary.vector("generalized")
    gs.run_command(
        "v.generalize",
        flags="t",
        input=name,
        output=result,
        method="douglas",
        threshold=tolerance,
        env=grid_environment(),
    )
    temporary.drop(name)
    return result


def make_points(table: InstanceTable, class_id: int, temporary: TemporaryMaps) -> str | None:
    """Points inside of the instances of a class, in a temporary map without a table; None without any."""
    indices = table.of_class(class_id)
    if not len(indices):
        return None
    path = Path(temporary.file("points"))
    with path.open("w") as file:
        for index in indices.tolist():
            file.write(f"{table.x[index]!r}|{table.y[index]!r}|{table.categories[index]}\n")
    points = temporary.vector("points")
    gs.run_command(
        "v.in.ascii", flags="t", input=str(path), output=points, x=1, y=2, cat=3, env=grid_environment()
    )
    return points


def measure_areas(name: str) -> np.ndarray:
    """(n, 2) float64: category and area, map units squared (square metres where map units are degrees)."""
    text = gs.read_command(
        "v.to.db",
        flags="p",
        map=name,
        option="area",
        columns="area",
        separator="pipe",
        env=grid_environment(),
    )
    rows = [line.split("|") for line in text.splitlines() if line[:1].isdigit()]
    unit = (metres_per_map_unit() or 1.0) ** 2  # v.to.db converts to square metres
    return np.array([(int(category), float(area) / unit) for category, area in rows]).reshape(-1, 2)


def attribute_rows(
    table: InstanceTable,
    class_id: int,
    class_name: str,
    measured: np.ndarray | None,
    certainty: bool = False,
) -> Iterator[tuple]:
    """Values of `COLUMNS` of the instances of a class, in the order of `table`.

    measured: areas that replace those of `table`, whose other rows are left out; see `measure_areas`.
    certainty: with those of `CERTAINTY_COLUMNS`.
    """
    areas = None if measured is None else dict(measured.tolist())
    sources = list(table.source_numbers)
    for index in table.of_class(class_id).tolist():
        category = table.categories[index]
        area = table.areas[index] if areas is None else areas.get(category)
        if area is not None:
            score = float(f"{table.scores[index]:.6g}")  # float32: more digits mean nothing
            row = category, class_name, score, area, sources[table.sources[index]]
            yield (*row, table.votes[index], float(f"{table.spreads[index]:.6g}")) if certainty else row


def table_columns(class_name: str = "", sources: Sequence[str] = (), certainty: bool = False) -> str:
    """Columns of an attribute table as in CREATE TABLE, wide enough for its texts."""
    types = {"class": text_type([class_name]), "source": text_type(sources)}
    columns = (*COLUMNS, *CERTAINTY_COLUMNS) if certainty else COLUMNS
    return ", ".join(f"{name} {kind or types[name]}" for name, kind in columns)
