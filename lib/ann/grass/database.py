"""The database that attribute tables go to: whether it can be used, and tables of names that are free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import grass.script as gs

from ann.errors import AnnError
from ann.grass.modules import interruptions_held, reason, run_apart
from ann.grass.tables import TableLink
from ann.grass.temporary import TemporaryMaps, unique_name

# One transaction for all rows; the others commit after each statement. DBF keeps a table in memory anyway.
TRANSACTION_DRIVERS = ("sqlite", "pg", "mysql")
ANSWER_TIME = 60.0  # seconds that a database may take before the work; a server that is away takes minutes
TABLE_NAME_LENGTH = 48  # PostgreSQL cuts names after 63 bytes, and the index has an ending of its own
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Database:
    """The database of the current mapset. name: as `db.connect` has it, variables unresolved."""

    driver: str
    name: str

    @property
    def has_transactions(self) -> bool:
        """Whether many rows are best written in one transaction."""
        return self.driver in TRANSACTION_DRIVERS

    def tables(self) -> set[str]:
        """All tables and views, whoever they belong to, in lower case: no driver tells cases apart.

        Raises:
            AnnError: the database can't be read.
        """
        done = run_apart("db.tables", flags="p", driver=self.driver, database=self.name, timeout=ANSWER_TIME)
        if done.returncode:
            raise AnnError(self._trouble("be read", reason(done)))
        return {line.split(".")[-1].strip('" ').lower() for line in done.stdout.splitlines()}

    def create_table(self, map_name: str, columns: str, temporary: TemporaryMaps) -> str:
        """Create a table for a map; returns its name. It goes with the temporary maps, unless finished.

        The name is the map's with the first number that is free, `house_1`. No SQL dialect has a word of this
        form, so any class name will do; and a table that existed before is never in the way, whoever owns it.

        columns: as in CREATE TABLE.

        Raises:
            AnnError: it can't be created.
        """
        return self._new_table(map_name, f"CREATE TABLE {{}} ({columns})", temporary)

    def rename_table(self, table: str, map_name: str, temporary: TemporaryMaps) -> str:
        """Give a table the name that a new one of a map would have, see `create_table`; returns it.

        Raises:
            AnnError: it can't be renamed.
        """
        return self._new_table(map_name, f"ALTER TABLE {table} RENAME TO {{}}", temporary)

    def _new_table(self, map_name: str, statement: str, temporary: TemporaryMaps) -> str:
        """Execute a statement with a free name in it; returns the name."""
        taken, failure = self.tables(), ""
        base = map_name[:TABLE_NAME_LENGTH]
        free = (name for number in count(1) if (name := f"{base}_{number}").lower() not in taken)
        for name in islice(free, ATTEMPTS):  # an index may have that name, or somebody was faster
            with interruptions_held():
                done = self._execute(statement.format(name))
                if done.returncode == 0:
                    temporary.table(TableLink(driver=self.driver, database=self.name, table=name))
                    return name
            failure = reason(done)
        raise AnnError(self._trouble("take a new table", failure))

    def execute_file(self, path: Path) -> None:
        """Execute SQL statements, one a line; AnnError with what the database said if one fails."""
        done = run_apart("db.execute", input=str(path), driver=self.driver, database=self.name)
        if done.returncode:
            raise AnnError(self._trouble("take new rows", reason(done)))

    def try_out(self, columns: str) -> None:
        """Create a table and remove it again.

        Raises:
            AnnError: one of both is not possible.
        """
        name = unique_name("trial")
        created = self._execute(f"CREATE TABLE {name} ({columns})")
        if created.returncode:
            raise AnnError(self._trouble("take a new table", reason(created)))
        dropped = self._execute(f"DROP TABLE {name}")
        if dropped.returncode:
            raise AnnError(self._trouble(f"drop the table <{name}> again", reason(dropped)))

    def _execute(self, statement: str):
        return run_apart(
            "db.execute", sql=statement, driver=self.driver, database=self.name, timeout=ANSWER_TIME
        )

    def _trouble(self, what: str, said: str) -> str:
        return (
            f"The database of this mapset ({self.driver}, {self.name}) can't {what}: {said} "
            "Check it with db.connect -p and db.tables -p; db.connect -d goes back to GRASS's default"
        )


def connected_database(columns: str) -> Database:
    """The database of the current mapset, tried out with a table of these columns.

    Raises:
        AnnError: vector maps or their tables can't be written here.
    """
    check_vector_format()
    done = run_apart("db.connect", flags="c")  # a new mapset has no database yet
    if done.returncode:
        raise AnnError(f"The mapset has no database for attribute tables: {reason(done)}")
    connection = gs.parse_command("db.connect", flags="g")
    database = Database(driver=connection.get("driver", ""), name=connection.get("database", ""))
    if re.search(r"\$MAP(?![A-Za-z_])|\$\{MAP\}", database.name):
        raise AnnError(
            f"The mapset's database has a file of its own for each map ({database.name}), which this module "
            "can't write. Name one without $MAP: db.connect driver=sqlite "
            "database='$GISDBASE/$LOCATION_NAME/$MAPSET/sqlite/sqlite.db'; maps keep the tables they have"
        )
    database.tables()
    database.try_out(columns)
    return database


def check_vector_format() -> None:
    """AnnError if new vector maps of this mapset would not be GRASS's own."""
    done = run_apart("v.external.out", flags="g")
    form = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line).get(
        "format", "native"
    )
    if form != "native":
        raise AnnError(
            f"Vector maps of this mapset are written as {form} (v.external.out), which this module can't do. "
            "Go back with v.external.out -r, and export the result with v.out.ogr"
        )


def quoted(text: str, driver: str) -> str:
    """Text as a string of SQL on one line."""
    text = " ".join(text.split()).replace("'", "''")
    if driver == "mysql":
        text = text.replace("\\", "\\\\")
    return f"'{text}'"
