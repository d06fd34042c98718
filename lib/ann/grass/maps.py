"""Maps of the project by their names."""

from __future__ import annotations

import grass.lib.gis as libgis

from ann.errors import AnnError
from ann.grass.region import LIBRARY_LOCK

LOOK_UP = {"Raster": libgis.G_find_raster2, "Vector": libgis.G_find_vector2}


def find_map(kind: str, full_name: str) -> tuple[str, str]:
    """Name and mapset of a map ("Raster" or "Vector") given as `name` or `name@mapset`.

    Raises:
        AnnError: there is none.
    """
    name, _, mapset = full_name.partition("@")
    with LIBRARY_LOCK:
        found = LOOK_UP[kind](name.encode(), mapset.encode())
    if not found:
        raise AnnError(
            f"{kind} map <{full_name}> not found. Check the name; maps of other mapsets are found as "
            "<name@mapset> or when the mapset is in the search path (g.mapsets)"
        )
    return name, found if isinstance(found, str) else found.decode()
