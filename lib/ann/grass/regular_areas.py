"""Areas of vector maps with right-angled outlines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import grass.script as gs
import numpy as np
import shapely
from shapely import Polygon, affinity

from ann.data.outlines.right_angles import regularize
from ann.grass.areas import read_areas
from ann.grass.polygons import polygon_map
from ann.grass.region import is_latitude_longitude
from ann.grass.temporary import TemporaryMaps


def regularize_areas(maps: Mapping[int, str], tolerance: float, temporary: TemporaryMaps) -> dict[int, str]:
    """New maps without tables in place of temporary ones, with right angles as `regularize` makes them.

    maps: names by class; areas of none of them overlap those of another, and they don't afterwards.
    tolerance: map units. In degrees, right angles are those on the ground at the maps' middle latitude.
    Memory is that of all outlines.
    """
    mapset = gs.gisenv()["MAPSET"]
    owners, outlines = [], []  # (class, category) of each outline
    for class_id, name in maps.items():
        for area in read_areas(f"{name}@{mapset}"):
            if area.categories:
                owners.append((class_id, area.categories[0]))
                outlines.append(Polygon(area.rings[0], area.rings[1:]))
    shorter = _east_west_scale(outlines)
    found = regularize([affinity.scale(one, shorter, origin=(0, 0)) for one in outlines], tolerance)
    found = [affinity.scale(one, 1 / shorter, origin=(0, 0)) for one in found]
    result = {}
    for class_id, name in maps.items():
        own = [
            (category, outline)
            for (owner, category), outline in zip(owners, found, strict=True)
            if owner == class_id
        ]
        result[class_id] = polygon_map(own, temporary)
        temporary.drop(name)
    return result


def _east_west_scale(outlines: list[Polygon]) -> float:
    """How much shorter a map unit is from west to east than from south to north."""
    if not outlines or not is_latitude_longitude():
        return 1.0
    _, south, _, north = shapely.total_bounds(np.array(outlines, dtype=object))
    return math.cos(math.radians((south + north) / 2))
