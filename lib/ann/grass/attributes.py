"""Vector maps get their attributes, and lack their names only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs

from ann.grass.database import Database, quoted
from ann.grass.exchange import FinishedMap
from ann.grass.region import grid_environment
from ann.grass.temporary import TemporaryMaps

TEXT_WIDTH = 255  # bytes; the limit of DBF


@dataclass(frozen=True, kw_only=True)
class MapTable:
    """An attribute table to be written. columns: as in CREATE TABLE, cat first; rows: their values."""

    columns: str
    rows: Iterable[Sequence[int | float | str]]
    database: Database


def text_type(texts: Sequence[str]) -> str:
    """The SQL type of a column that is wide enough for these texts."""
    return f"VARCHAR({max([len(_cut(text).encode()) for text in texts], default=0) or 1})"


def finish_vector_map(
    geometry: str | None,
    name: str,
    table: MapTable,
    *,
    title: str,
    comment: str,
    temporary: TemporaryMaps,
) -> FinishedMap:
    """Give temporary geometry its attributes, so that it lacks its name only; see `exchange`.

    geometry: a map without a table; None makes an empty map, so that scripts find one. name: what the map
    will be called.
    """
    environment = grid_environment()
    database = table.database
    if geometry is None:
        geometry = temporary.vector("empty")
        gs.run_command("v.in.ascii", flags="et", input="-", output=geometry, env=environment)
    table_name = database.create_table(name, table.columns, temporary)
    path = Path(temporary.file("sql"))
    features = 0
    with path.open("w", encoding="utf-8") as file:
        if database.has_transactions:
            file.write("BEGIN;\n")
        for row in table.rows:
            features += 1
            values = ", ".join(literal(value, database.driver) for value in row)
            file.write(f"INSERT INTO {table_name} VALUES ({values});\n")
        if database.has_transactions:
            file.write(f"COMMIT;\nCREATE INDEX {table_name}_cat ON {table_name} (cat);\n")
    database.execute_file(path)
    connect_table(geometry, database, table_name)
    gs.run_command(
        "v.support",
        map=geometry,
        map_name=title[:72],
        comment=comment[:79],
        cmdhist=os.environ["CMDLINE"],
        env=environment,
    )
    return FinishedMap(kind="vector", temporary=geometry, name=name, table=table_name, features=features)


def connect_table(geometry: str, database: Database, table: str, key: str = "cat") -> None:
    """Make a table that of a vector map."""
    gs.run_command(
        "v.db.connect",
        map=geometry,
        driver=database.driver,
        database=database.name,
        table=table,
        key=key,
        layer=1,
        env=grid_environment(),
    )


def literal(value: int | float | str | None, driver: str) -> str:
    """A value in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return quoted(_cut(value), driver)
    return f"{value:.12g}"


def _cut(text: str) -> str:
    """As much of a text as a column takes."""
    return text.encode()[:TEXT_WIDTH].decode(errors="ignore")
