"""The user's raster mask: whether there is one, and a place where it does not apply."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grass.lib.gis as libgis
import grass.script as gs

from ann.grass.temporary import MARK, unique_name


@dataclass(frozen=True, kw_only=True)
class ScratchMapset:
    """A mapset for a moment. variables: what makes a child process work in it."""

    name: str
    variables: dict[str, str]


def mask_is_set() -> bool:
    """Whether a raster mask is active in the current mapset."""
    # the variable is known since GRASS 8.5
    name, _, mapset = os.environ.get("GRASS_MASK", "MASK").partition("@")
    return bool(libgis.G_find_raster2(name.encode(), (mapset or gs.gisenv()["MAPSET"]).encode()))


@contextmanager
def scratch_mapset() -> Iterator[ScratchMapset]:
    """A mapset beside the current one, in which no mask is set; removed at the end.

    Modules can't be told to ignore the mask, and it must not be touched: what should not see it runs there.
    """
    session = gs.gisenv()
    project = Path(session["GISDBASE"], session["LOCATION_NAME"])
    name = unique_name("scratch")
    with tempfile.TemporaryDirectory(prefix="maskrcnn") as folder:
        gisrc = Path(folder, "gisrc")
        gisrc.write_text("".join(f"{key}: {value}\n" for key, value in (session | {"MAPSET": name}).items()))
        try:
            (project / name).mkdir()
            (project / name / MARK).touch()
            shutil.copy(project / "PERMANENT" / "DEFAULT_WIND", project / name / "WIND")
            variables = {"GISRC": str(gisrc)}
            if "GRASS_MASK" in os.environ:
                variables["GRASS_MASK"] = f"MASK@{name}"
            yield ScratchMapset(name=name, variables=variables)
        finally:
            shutil.rmtree(project / name, ignore_errors=True)
