"""Outlines and boxes in degrees on both sides of 180 degrees east.

The same meridian is written as 180 and -180, and what lies across it as one outline whose longitudes jump by
360, as one that goes on beyond 180, or as parts on both sides.
"""

from __future__ import annotations

import numpy as np
import shapely

TURN = 360.0
TURNS = (-TURN, 0.0, TURN)


def unwrap(geometries: np.ndarray) -> np.ndarray:
    """Geometries (N,), longitude and latitude, without jumps: those across 180 degrees go on beyond it.

    An outline that is as wide either way, such as one around the Earth, stays as it is.
    """
    bounds = shapely.bounds(geometries)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > TURN / 2)
    if not len(wide):
        return geometries
    moved = shapely.transform(geometries[wide], _without_jumps)
    bounds = shapely.bounds(moved)
    narrow = (bounds[:, 2] - bounds[:, 0] < TURN / 2) & (shapely.area(moved) > 0)
    geometries = geometries.copy()
    geometries[wide[narrow]] = moved[narrow]
    return geometries


def eastward(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """(west, south, east, north) with east above west, beyond 180 where the box lies across."""
    west, south, east, north = bounds
    return west, south, east + TURN if east < west else east, north


def _without_jumps(points: np.ndarray) -> np.ndarray:
    return np.column_stack([np.where(points[:, 0] < 0, points[:, 0] + TURN, points[:, 0]), points[:, 1]])
