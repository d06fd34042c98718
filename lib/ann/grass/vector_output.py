"""Instances as vector maps: one map per class, with areas or points and an attribute table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs
import numpy as np

from ann.grass.database import Database, quoted
from ann.grass.exchange import FinishedMap
from ann.grass.instances import InstanceTable
from ann.grass.mask import ScratchMapset, mask_is_set, scratch_mapset
from ann.grass.region import Grid, grid_environment, metres_per_map_unit
from ann.grass.temporary import TemporaryMaps

COLUMNS = (
    ("cat", "INTEGER"),
    ("class", "VARCHAR({class_width})"),
    ("score", "DOUBLE PRECISION"),
    ("area", "DOUBLE PRECISION"),
    ("source", "VARCHAR({source_width})"),
)
TEXT_WIDTH = 255  # bytes; the limit of DBF


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
                _areas_of_cells(raster, areas, environment, scratch)
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


def _areas_of_cells(
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One instance in the attribute table."""

    category: int
    score: float
    area: float
    source: str


def attribute_rows(table: InstanceTable, class_id: int, measured: np.ndarray | None) -> Iterator[Row]:
    """Rows of the instances of a class, in the order of `table`.

    measured: areas that replace those of `table`, whose other rows are left out; see `measure_areas`.
    """
    areas = None if measured is None else dict(measured.tolist())
    sources = list(table.source_numbers)
    for index in table.of_class(class_id).tolist():
        category = table.categories[index]
        area = table.areas[index] if areas is None else areas.get(category)
        if area is not None:
            yield Row(
                category=category,
                score=table.scores[index],
                area=area,
                source=sources[table.sources[index]],
            )


def table_columns(class_name: str = "", sources: Sequence[str] = ()) -> str:
    """Columns of an attribute table as in CREATE TABLE, wide enough for its texts."""
    widths = {
        "class_width": _width([class_name]),
        "source_width": _width(sources),
    }
    return ", ".join(f"{name} {kind.format(**widths)}" for name, kind in COLUMNS)


def finish_vector_map(
    geometry: str | None,
    name: str,
    rows: Iterable[Row],
    class_name: str,
    *,
    sources: Sequence[str],
    comment: str,
    database: Database,
    temporary: TemporaryMaps,
) -> FinishedMap:
    """Give temporary geometry its attributes, so that it lacks its name only; see `exchange`.

    geometry: a map without a table; None makes an empty map, so that scripts find a map for each class.
    name: what the map will be called. sources: names of all scenes.
    """
    environment = grid_environment()
    if geometry is None:
        geometry = temporary.vector("empty")
        gs.run_command("v.in.ascii", flags="et", input="-", output=geometry, env=environment)
    table = database.create_table(name, table_columns(class_name, sources), temporary)
    path = Path(temporary.file("sql"))
    features = 0
    with path.open("w", encoding="utf-8") as file:
        if database.has_transactions:
            file.write("BEGIN;\n")
        class_text = quoted(_cut(class_name), database.driver)
        for row in rows:
            features += 1
            file.write(
                f"INSERT INTO {table} VALUES ({row.category}, {class_text}, {row.score:.6g}, "
                f"{row.area:.12g}, {quoted(_cut(row.source), database.driver)});\n"
            )
        if database.has_transactions:
            file.write(f"COMMIT;\nCREATE INDEX {table}_cat ON {table} (cat);\n")
    database.execute_file(path)
    gs.run_command(
        "v.db.connect",
        map=geometry,
        driver=database.driver,
        database=database.name,
        table=table,
        key="cat",
        layer=1,
        flags="o",
        env=environment,
    )
    gs.run_command(
        "v.support",
        map=geometry,
        map_name=f"Detected instances of {class_name}"[:72],
        comment=comment[:79],
        env=environment,
    )
    gs.vector_history(geometry, env=environment)
    return FinishedMap(kind="vector", temporary=geometry, name=name, table=table, features=features)


def _width(texts: Sequence[str]) -> int:
    return max([len(_cut(text).encode()) for text in texts], default=0) or 1


def _cut(text: str) -> str:
    """As much of a text as a column takes."""
    return text.encode()[:TEXT_WIDTH].decode(errors="ignore")
