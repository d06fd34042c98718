"""Instances as vector maps: one map per class, with areas or points and an attribute table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs
import numpy as np

from ann.grass.mask import ScratchMapset, mask_is_set, scratch_mapset
from ann.grass.region import Grid, grid_environment, metres_per_map_unit
from ann.grass.temporary import TemporaryMaps
from maskrcnn.grass.instances import InstanceTable

# One transaction for all rows; the others commit after each statement. DBF keeps a table in memory anyway.
TRANSACTION_DRIVERS = ("sqlite", "pg", "mysql")
# A map may have such a name, a table must not.
SQL_NAMES = (
    *("ADD", "ALL", "ALTER", "AND", "AS", "BETWEEN", "BY", "CASE", "CHECK", "COLUMN", "COMMIT"),
    *("CREATE", "DEFAULT", "DELETE", "DISTINCT", "DROP", "ELSE", "END", "EXISTS", "FOREIGN", "FROM"),
    *("GROUP", "HAVING", "IN", "INDEX", "INSERT", "INTO", "IS", "JOIN", "LIKE", "LIMIT", "NOT", "NULL"),
    *("ON", "OR", "ORDER", "PRIMARY", "REFERENCES", "SELECT", "SET", "TABLE", "THEN", "TO", "UNION"),
    *("UNIQUE", "UPDATE", "USER", "USING", "VALUES", "VIEW", "WHEN", "WHERE"),
)
# Where scenes overlap, an object that loses more of its area to those of an earlier scene is one of them.
SAME_OBJECT_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class SceneAreas:
    """Areas of one class in one scene, in a temporary map without a table."""

    name: str
    grid: Grid


class AreaMaps:
    """Collects the areas of scene after scene, then makes one map per class of them."""

    def __init__(self, temporary: TemporaryMaps):
        self._temporary = temporary
        self._parts: dict[int, list[SceneAreas]] = {}

    def add_scene(self, instance_raster: str, table: InstanceTable, grid: Grid) -> None:
        """Make areas of the cells of an instance map, whose rows `table` has; after an error of none.

        The user's mask does not count here: where it applies, it did when the scene was read, with cells
        that may have been of another size.
        """
        made: dict[int, SceneAreas] = {}
        classes = np.unique(np.asarray(table.class_ids, dtype=np.int16)).tolist()
        environment = grid_environment(grid)
        for class_id in classes:
            raster = instance_raster
            if len(classes) > 1:
                raster = self._reclass(instance_raster, table, class_id, environment)
            areas = self._temporary.vector("areas")
            with ExitStack() as stack:
                scratch = None
                if mask_is_set():
                    scratch = stack.enter_context(scratch_mapset())
                _areas_of_cells(raster, areas, environment, scratch)
            if raster != instance_raster:
                self._temporary.drop(raster)
            made[class_id] = SceneAreas(name=areas, grid=grid)
        for class_id, part in made.items():
            self._parts.setdefault(class_id, []).append(part)

    def collect(self, class_id: int) -> tuple[str | None, np.ndarray | None]:
        """(temporary map with all areas of a class, without a table; measured areas), (None, None) if empty.

        measured areas: None as long as areas are those of the cells, else as `measure_areas` gives them.
        """
        parts = self._parts.pop(class_id, [])
        if not parts:
            return None, None
        if len(parts) == 1:
            return parts[0].name, None
        names, measured = [parts[0].name], None
        for number, part in enumerate(parts[1:], start=1):
            name = part.name
            if any(part.grid.overlaps(earlier.grid) for earlier in parts[:number]):
                name = self._without_earlier(name, names)
                measured = np.empty((0, 2))
            if name is not None:
                names.append(name)
        merged = self._patch(names)
        if any(
            part.grid.touches(other.grid) for number, part in enumerate(parts) for other in parts[:number]
        ):
            cleaned = self._temporary.vector("cleaned")
            gs.run_command(
                "v.clean", input=merged, output=cleaned, tool="break,rmdupl,rmdac", env=grid_environment()
            )
            self._temporary.drop(merged)
            merged = cleaned
        return merged, None if measured is None else measure_areas(merged)

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
        if len(names) == 1:
            gs.run_command("g.rename", vector=f"{names[0]},{patched}", env=grid_environment())
            self._temporary.finished(names[0])
            return patched
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

    def _without_earlier(self, name: str, earlier: Sequence[str]) -> str | None:
        """Areas outside of those of earlier scenes, without objects that those have; None if none stays."""
        before = measure_areas(name)
        environment = grid_environment()
        for other in earlier:
            rest = self._temporary.vector("rest")
            gs.run_command(
                "v.overlay",
                flags="t",
                ainput=name,
                atype="area",
                binput=other,
                operator="not",
                output=rest,
                olayer="0,1,0",
                env=environment,
            )
            self._temporary.drop(name)
            name = rest
            if not gs.vector_info_topo(name, env=environment)["centroids"]:
                self._temporary.drop(name)
                return None
        sizes = dict(before)
        kept = [
            int(cat)
            for cat, area in measure_areas(name)
            if area >= SAME_OBJECT_SHARE * sizes.get(cat, np.inf)
        ]
        if not kept:
            self._temporary.drop(name)
            return None
        result, file = self._temporary.vector("new"), Path(self._temporary.file("kept"))
        file.write_text("".join(f"{category}\n" for category in kept))
        gs.run_command("v.extract", flags="t", input=name, output=result, file=str(file), env=environment)
        self._temporary.drop(name)
        return result


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


def finish_vector_map(
    geometry: str | None,
    name: str,
    table: InstanceTable,
    class_id: int,
    class_name: str,
    *,
    measured: np.ndarray | None,
    comment: str,
    temporary: TemporaryMaps,
) -> int:
    """Give temporary geometry its name and its attributes; returns the number of features.

    geometry: a map without a table; None makes an empty map, so that scripts find a map for each class.
    measured: areas that replace those of `table`, whose other rows are left out; see `measure_areas`.
    An existing map of that name is overwritten, together with its table.
    """
    environment = grid_environment()
    if geometry is None:
        geometry = temporary.vector("empty")
        gs.run_command("v.in.ascii", flags="et", input="-", output=geometry, env=environment)
    temporary.unfinished_vector(name)
    gs.run_command("g.rename", vector=f"{geometry},{name}", overwrite=True, env=environment)
    temporary.finished(geometry)
    sql_name = f"{name}_" if name.upper() in SQL_NAMES else name
    gs.run_command("db.connect", flags="c", env=environment)  # a new mapset has no database yet
    if sql_name in gs.read_command("db.tables", flags="p", env=environment).split():
        gs.run_command("db.droptable", flags="f", table=sql_name, env=environment)
    temporary.unfinished_table(sql_name)
    indices = table.of_class(class_id)
    areas = np.asarray(table.areas)[indices]
    if measured is not None:
        by_category = dict(measured)
        categories = np.asarray(table.categories)[indices].tolist()
        areas = np.array([by_category.get(category, np.nan) for category in categories])
        indices, areas = indices[~np.isnan(areas)], areas[~np.isnan(areas)]
    path = Path(temporary.file("sql"))
    driver = gs.parse_command("db.connect", flags="g", env=environment).get("driver", "sqlite")
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            _statements(sql_name, table, indices, areas, class_name, driver in TRANSACTION_DRIVERS)
        )
    gs.run_command("db.execute", input=str(path), env=environment)
    gs.run_command("v.db.connect", map=name, table=sql_name, key="cat", layer=1, flags="o", env=environment)
    gs.run_command(
        "v.support",
        map=name,
        map_name=f"Detected instances of {class_name}"[:72],
        comment=comment[:79],
        env=environment,
    )
    gs.vector_history(name, env=environment)
    temporary.finished(name)
    temporary.finished(sql_name)
    return len(indices)


def _statements(
    sql_name: str,
    table: InstanceTable,
    indices: np.ndarray,
    areas: np.ndarray,
    class_name: str,
    transaction: bool,
) -> Iterator[str]:
    longest = max([len(source.encode()) for source in table.source_names], default=1)
    width, class_width = min(max(longest, 1), 255), min(len(class_name.encode()), 255)
    yield (
        f"CREATE TABLE {sql_name} (cat INTEGER, class VARCHAR({class_width}), score DOUBLE PRECISION, "
        f"area DOUBLE PRECISION, source VARCHAR({width}));\n"
    )
    if transaction:
        yield "BEGIN;\n"
    texts = [_quoted(source[:width]) for source in table.source_names]
    class_text = _quoted(class_name[:class_width])
    for index, area in zip(indices.tolist(), areas.tolist(), strict=True):
        yield (
            f"INSERT INTO {sql_name} VALUES ({table.categories[index]}, {class_text}, "
            f"{table.scores[index]:.6g}, {area:.12g}, {texts[table.sources[index]]});\n"
        )
    if transaction:
        yield "COMMIT;\n"
        yield f"CREATE INDEX {sql_name}_cat ON {sql_name} (cat);\n"


def _quoted(text: str) -> str:
    text = " ".join(text.split())  # a statement is one line
    return "'" + text.replace("'", "''") + "'"
