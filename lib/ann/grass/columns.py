"""Columns of attribute tables, filled for many features at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs

from ann.errors import AnnError
from ann.grass.areas import LAYER
from ann.grass.attributes import literal
from ann.grass.database import Database
from ann.grass.modules import reason, run_apart
from ann.grass.region import grid_environment
from ann.grass.tables import TableLink
from ann.grass.temporary import TemporaryMaps

NAME_LENGTH = 10  # of columns in DBF
TEXTS = ("CHARACTER", "TEXT", "VARCHAR")


@dataclass(frozen=True, kw_only=True)
class LinkedTable:
    """The attribute table of a vector map. key: its column with the categories."""

    link: TableLink
    key: str

    @property
    def database(self) -> Database:
        """The database that it is in."""
        return Database(driver=self.link.driver, name=self.link.database)


def table_of(name: str) -> LinkedTable | None:
    """The table of a vector map; None for a map without."""
    connection = gs.vector_db(name, env=grid_environment()).get(LAYER)
    if connection is None:
        return None
    link = TableLink(driver=connection["driver"], database=connection["database"], table=connection["table"])
    return LinkedTable(link=link, key=connection["key"])


def check_columns(name: str, columns: Mapping[str, str], driver: str) -> None:
    """See that columns can be added to the table of a vector map, or overwritten.

    columns: their SQL types by name.

    Raises:
        AnnError: one exists and may not be overwritten or is of another type, or has too long a name.
    """
    if driver == "dbf" and any(len(column) > NAME_LENGTH for column in columns):
        raise AnnError(
            f"The database of DBF files takes names of columns of {NAME_LENGTH} letters only. Use SQLite: "
            "db.connect -d"
        )
    if table_of(name) is None:
        return
    found = gs.vector_columns(name, LAYER, env=grid_environment())
    existing = {column.lower(): details["type"] for column, details in found.items()}
    clashes = [column for column in columns if column.lower() in existing]
    if clashes and not gs.overwrite():
        raise AnnError(
            f"The table of <{name}> has the column {' and '.join(clashes)} already. Use --overwrite, or "
            f"other "
            "names with prefix="
        )
    for column in clashes:
        kind = existing[column.lower()].upper()
        if kind.startswith(TEXTS) != columns[column].startswith(TEXTS):
            raise AnnError(
                f"The column {column} of <{name}> is of the type {kind}. Use other names with prefix="
            )


def write_columns(
    table: LinkedTable,
    columns: Mapping[str, str],
    rows: Iterable[tuple[int, Sequence[str | float | None]]],
    temporary: TemporaryMaps,
) -> None:
    """Add columns to a table, unless they are there, and fill them; categories that it lacks get a row.

    rows: category and values. Where the database has transactions all is done or nothing.

    Raises:
        AnnError: the database refuses it.
    """
    database, name = table.database, table.link.table
    there = {line.split("|")[0].lower() for line in _described(table)}
    known = _keys(table)
    path = Path(temporary.file("sql"))
    with path.open("w", encoding="utf-8") as file:
        if database.has_transactions:
            file.write("BEGIN;\n")
        for column, kind in columns.items():
            if column.lower() not in there:
                file.write(f"ALTER TABLE {name} ADD COLUMN {column} {kind};\n")
        for category, values in rows:
            texts = [literal(value, database.driver) for value in values]
            if category in known:
                pairs = ", ".join(f"{column} = {text}" for column, text in zip(columns, texts, strict=True))
                file.write(f"UPDATE {name} SET {pairs} WHERE {table.key} = {category};\n")
            else:
                file.write(
                    f"INSERT INTO {name} ({', '.join((table.key, *columns))}) "
                    f"VALUES ({', '.join((str(category), *texts))});\n"
                )
        if database.has_transactions:
            file.write("COMMIT;\n")
    database.execute_file(path)


def _described(table: LinkedTable) -> list[str]:
    """Lines with the name of a column each."""
    done = run_apart(
        "db.columns", table=table.link.table, driver=table.link.driver, database=table.link.database
    )
    if done.returncode:
        raise AnnError(f"The attribute table {table.link.table} can't be read: {reason(done)}")
    return done.stdout.splitlines()


def _keys(table: LinkedTable) -> set[int]:
    done = run_apart(
        "db.select",
        flags="c",
        sql=f"SELECT {table.key} FROM {table.link.table}",
        driver=table.link.driver,
        database=table.link.database,
    )
    if done.returncode:
        raise AnnError(f"The attribute table {table.link.table} can't be read: {reason(done)}")
    return {int(line) for line in done.stdout.split() if line.lstrip("-").isdigit()}
