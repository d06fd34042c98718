"""The windows of all scenes that labels would help most in, as a vector map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from ann.grass.attributes import MapTable, finish_vector_map, text_type
from ann.grass.database import Database
from ann.grass.exchange import FinishedMap
from ann.grass.polygons import polygon_map
from ann.grass.region import Grid
from ann.grass.temporary import TemporaryMaps
from maskrcnn.instances.uncertain import UncertainWindow

LEAST_SHARE = 1e-6  # of a window that counts as ground in common, and not as rounding


@dataclass(frozen=True, kw_only=True)
class WindowOnGround:
    """A window of a scene as a polygon in map coordinates. source: the scene's name."""

    outline: Polygon | MultiPolygon
    uncertainty: float
    detections: int
    source: str


def windows_on_ground(windows: Sequence[UncertainWindow], grid: Grid, source: str) -> list[WindowOnGround]:
    """Windows of a scene whose pixels are the cells of `grid`; neighbours have the same corners exactly."""
    found = []
    for one in windows:
        y1, x1, y2, x2 = one.window.box
        north, south = (grid.north - row * grid.row_size for row in (y1, y2))
        west, east = (grid.west + column * grid.column_size for column in (x1, x2))
        found.append(
            WindowOnGround(
                outline=shapely.box(west, south, east, north),
                uncertainty=one.uncertainty,
                detections=one.detections,
                source=source,
            )
        )
    return found


def without_common_ground(windows: Sequence[WindowOnGround]) -> list[WindowOnGround]:
    """The windows, the most uncertain first; ground that several scenes show belongs to the first of them."""
    ranked = sorted(windows, key=lambda one: -one.uncertainty)
    outlines = np.array([one.outline for one in ranked], dtype=object)
    tree = shapely.STRtree(outlines)
    kept = []
    for rank, one in enumerate(ranked):
        near = tree.query(one.outline, predicate="intersects")
        better = shapely.union_all(outlines[near[near < rank]])
        if one.outline.intersection(better).area > LEAST_SHARE * one.outline.area:
            one = replace(one, outline=one.outline.difference(better))
        if one.outline.area > LEAST_SHARE * outlines[rank].area:
            kept.append(one)
    return kept


def finish_windows(
    windows: Sequence[WindowOnGround], name: str, *, database: Database, temporary: TemporaryMaps
) -> FinishedMap:
    """A map of areas that lacks its name only; categories are ranks, 1 the most uncertain window."""
    ranked = list(enumerate(without_common_ground(windows), 1))
    rows = ((rank, rank, float(f"{one.uncertainty:.6g}"), one.detections, one.source) for rank, one in ranked)
    source_type = text_type([one.source for _, one in ranked])
    return finish_vector_map(
        polygon_map([(rank, one.outline) for rank, one in ranked], temporary) if ranked else None,
        name,
        MapTable(
            columns="cat INTEGER, rank INTEGER, uncertainty DOUBLE PRECISION, detections INTEGER, "
            f"source {source_type}",
            rows=rows,
            database=database,
        ),
        title="Windows to label next",
        comment="Ranked by the uncertainty of a Mask R-CNN",
        temporary=temporary,
    )
