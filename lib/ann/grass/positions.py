"""Where images lie, in coordinates of the project."""

from __future__ import annotations

import functools
import math

import grass.script as gs
from rasterio._err import CPLE_BaseError  # what PROJ reports has no public class
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_coordinates

from ann.data.dataset import Place
from ann.data.pixels.gps import gps_position
from ann.data.pixels.rasters import open_image
from ann.grass.region import grid_environment, has_coordinate_system

WGS_84 = CRS.from_epsg(4326)


@functools.cache
def project_system() -> CRS | None:
    """The project's coordinate system; None in a project without one, or where it is none that PROJ knows."""
    if not has_coordinate_system():
        return None
    try:
        return CRS.from_wkt(gs.read_command("g.proj", flags="w", env=grid_environment(), quiet=True))
    except CRSError:
        return None


def to_project(x: float, y: float, system: CRS) -> tuple[float, float] | None:
    """A point in coordinates of the project; None where they have none for it."""
    target = project_system()
    if target is None:
        return None
    try:
        (east,), (north,) = transform_coordinates(system, target, [x], [y])
    except (RasterioError, CPLE_BaseError):
        return None
    return (east, north) if math.isfinite(east) and math.isfinite(north) else None


def image_position(path: str, place: Place | None, height: int, width: int) -> tuple[float, float] | None:
    """The centre of an image file, or where the photo was taken; None where neither is known.

    Coordinates without a coordinate system are taken to be those of the project.
    """
    if place is not None:
        a, b, c, d, e, f = place.transform[:6]
        x, y = a * width / 2 + b * height / 2 + c, d * width / 2 + e * height / 2 + f
        return to_project(x, y, CRS.from_wkt(place.frame)) if place.frame else (x, y)
    with open_image(path) as source:
        position = gps_position(source)
    return None if position is None else to_project(*position, WGS_84)
