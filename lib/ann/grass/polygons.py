"""Polygons as the areas of a vector map."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import grass.script as gs
import shapely
from shapely import MultiPolygon, Polygon

from ann.grass.region import grid_environment
from ann.grass.temporary import TemporaryMaps


def polygon_map(outlines: Iterable[tuple[int, Polygon | MultiPolygon]], temporary: TemporaryMaps) -> str:
    """A temporary map without a table, of one polygon or more, each with its category, map coordinates.

    No two of them overlap; where they touch, they get one boundary in common.
    """
    path = Path(temporary.file("areas") + ".geojson")
    with path.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for index, (category, outline) in enumerate(outlines):
            feature = {
                "type": "Feature",
                "properties": {"cat": category},
                "geometry": shapely.geometry.mapping(outline),
            }
            file.write(("," if index else "") + json.dumps(feature) + "\n")
        file.write("]}\n")
    result = temporary.vector("polygons")
    gs.run_command(
        "v.in.ogr",
        flags="ot",
        input=str(path),
        output=result,
        key="cat",
        min_area=0,
        snap=-1,
        quiet=True,
        env=grid_environment(),
    )
    return result
