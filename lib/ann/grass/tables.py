"""Attribute tables that vector maps are connected with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ann.grass.modules import reason, run_apart


@dataclass(frozen=True, kw_only=True)
class TableLink:
    """A table that a vector map is connected with. database: its name or path."""

    driver: str
    database: str
    table: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for links to the same table."""
        return self.driver, self.database, self.table.lower()

    def drop(self) -> str | None:
        """Drop the table; returns why it can't be."""
        done = run_apart(
            "db.execute", sql=f"DROP TABLE {self.table}", driver=self.driver, database=self.database
        )
        return reason(done) if done.returncode else None


def linked_tables(vector_folder: Path, map_name: str) -> list[TableLink]:
    """Tables of the vector map that is kept in a folder `.../<project>/<mapset>/vector/...`.

    map_name: which map it was when the folder has another name for a moment.
    The file dbln has a line for each: layer, table, key, database, driver, separated by | or spaces (GRASS
    Programmer's Manual, vector library). It is read directly, since a module a map takes too long for all.
    """
    try:
        lines = (vector_folder / "dbln").read_text(errors="replace").splitlines()
    except OSError:
        return []
    links = []
    for line in lines:
        fields = line.split("|") if "|" in line else line.split()
        if len(fields) == 5 and not line.startswith("#"):
            link = TableLink(driver=fields[4].strip(), database=fields[3], table=fields[1])
            links.append(resolved(link, vector_folder.parents[1], map_name))
    return links


def resolved(link: TableLink, mapset: Path, map_name: str = "") -> TableLink:
    """A link of a map in a mapset without the variables in its database, such as $GISDBASE."""
    variables = {
        "GISDBASE": str(mapset.parents[1]),
        "LOCATION_NAME": mapset.parent.name,
        "MAPSET": mapset.name,
        "MAP": map_name,
    }
    database = re.sub(r"\$(\w+)", lambda found: variables.get(found[1], found[0]), link.database)
    return replace(link, database=database)


def tables_of_all_maps(project: Path) -> dict[tuple[str, str, str], int]:
    """How many links all vector maps of a project have to each table, by `TableLink.key`."""
    links: dict[tuple[str, str, str], int] = {}
    for file in project.glob("*/vector/*/dbln"):
        for link in linked_tables(file.parent, file.parent.name):
            links[link.key] = links.get(link.key, 0) + 1
    return links
