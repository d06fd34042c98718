"""How large pixels are on the ground, in metres, whatever the units of their coordinate system."""

from __future__ import annotations

import math

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

# WGS 84; other ellipsoids differ by less than a thousandth
SEMI_MAJOR_AXIS = 6378137.0  # metres
ECCENTRICITY_SQUARED = 0.00669437999
SMALLEST_PIXEL = 1e-3  # map units: smaller ones without a coordinate system are degrees rather than metres


def metres_per_pixel(transform: Affine, crs: CRS | None, height: int, width: int) -> float | None:
    """Side of a square as large as a pixel in the middle of an image, metres; rotation doesn't matter.

    transform: pixels (column, row) to map coordinates. None where the image has no georeference. Without a
    coordinate system map units are taken for metres, unless they can't be.
    """
    side = abs(transform.determinant) ** 0.5
    if transform.is_identity or not side:
        return None
    if crs is not None and crs.is_geographic:
        latitude = transform.d * width / 2 + transform.e * height / 2 + transform.f
        return side * metres_per_degree(latitude)
    if crs is not None and crs.is_projected:
        try:
            return side * crs.linear_units_factor[1]
        except CRSError:
            pass
    return side if side >= SMALLEST_PIXEL else None


def metres_per_degree(latitude: float) -> float:
    """Side of a square as large as one square degree of longitude and latitude at a latitude, metres."""
    flattened = 1 - ECCENTRICITY_SQUARED * math.sin(math.radians(latitude)) ** 2
    along_meridian = SEMI_MAJOR_AXIS * (1 - ECCENTRICITY_SQUARED) / flattened**1.5
    along_parallel = SEMI_MAJOR_AXIS / flattened**0.5 * math.cos(math.radians(latitude))
    return math.radians(1) * math.sqrt(along_meridian * max(along_parallel, 0.0))
