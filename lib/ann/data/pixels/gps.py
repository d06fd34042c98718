"""Where a photo was taken: the coordinates that cameras write into it (Exif 2.32, 4.6.6)."""

from __future__ import annotations

import math
import re

import rasterio

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:/\d+(?:\.\d+)?)?")


def gps_position(source: rasterio.DatasetReader) -> tuple[float, float] | None:
    """(longitude, latitude) in degrees of WGS 84, east and north positive; None where a photo doesn't say."""
    tags = source.tags() | source.tags(ns="EXIF")
    longitude = _degrees(tags.get("EXIF_GPSLongitude", ""), tags.get("EXIF_GPSLongitudeRef", ""), "W")
    latitude = _degrees(tags.get("EXIF_GPSLatitude", ""), tags.get("EXIF_GPSLatitudeRef", ""), "S")
    if longitude is None or latitude is None or abs(longitude) > 180 or abs(latitude) > 90:
        return None
    # a camera without a fix writes zeros
    return (longitude, latitude) if longitude or latitude else None


def _degrees(text: str, side: str, negative: str) -> float | None:
    """Degrees, minutes and seconds, as "(12) (34) (5.67)", as a number."""
    parts = [_number(one) for one in NUMBER.findall(text)]
    if not parts or not all(map(math.isfinite, parts)):
        return None
    value = sum(part / 60**place for place, part in enumerate(parts[:3]))
    return -value if side.strip().upper().startswith(negative) else value


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    divisor = float(below or 1)
    return float(above) / divisor if divisor else math.nan
