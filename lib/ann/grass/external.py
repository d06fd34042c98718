"""Raster maps whose cells r.external.out has put in files outside of the project."""

from __future__ import annotations

import re
from pathlib import Path

LINK = "gdal"  # in cell_misc/<map>


def link_of(mapset: Path, name: str) -> Path:
    """Where a raster map says in which file its cells are; maps of GRASS's own format have no such file."""
    return mapset / "cell_misc" / name / LINK


def external_file(mapset: Path, name: str) -> Path | None:
    """The file with the cells of a raster map; None if they are in the project."""
    try:
        found = re.search(r"^file: (.+)$", link_of(mapset, name).read_text(), re.MULTILINE)
    except OSError:
        return None
    return Path(found[1]) if found else None


def link_to(link: str, file: Path) -> str:
    """The text of a link with another file."""
    return re.sub(r"^file: .*$", lambda _: f"file: {file}", link, flags=re.MULTILINE)


def files_beside(file: Path, name: str) -> list[Path]:
    """A file of a map called `name` and those that GDAL puts beside it; none if it is called otherwise."""
    try:
        return [path for path in file.parent.iterdir() if re.match(rf"{re.escape(name)}(\.|$)", path.name)]
    except OSError:
        return []


def output_folder(mapset: Path) -> Path | None:
    """Where r.external.out puts new maps, None if it is not in force."""
    try:
        text = (mapset / "GDAL").read_text()
    except OSError:
        return None
    found = re.search(r"^directory: (.+)$", text, re.MULTILINE)
    return mapset / "gdal" / (found[1] if found else "")  # an absolute path stands for itself
