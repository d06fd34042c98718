"""The size of pixels on the ground is in metres, whatever the units of the coordinate system."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from ann.data.metres import metres_per_degree, metres_per_pixel
from ann.data.pixels.rasters import read_header

METRES, US_FEET, DEGREES = (CRS.from_epsg(code) for code in (32633, 2240, 4326))
FOOT = 1200 / 3937  # US survey foot, metres


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        (METRES, Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), 0.5),
        (METRES, Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5), 0.5),
        (METRES, Affine(0, 0.5, 500_000, 0.5, 0, 5_000_000), 0.5),  # turned by a right angle
        (US_FEET, Affine(2, 0, 2_000_000, 0, -2, 500_000), 2 * FOOT),
        (DEGREES, Affine(1e-5, 0, 15, 0, -1e-5, 1e-5), 1.1094),  # on the equator: 1.1132 m by 1.1057 m
        (DEGREES, Affine(1e-5, 0, 15, 0, -1e-5, 60), 0.7885),  # at 60 degrees: 0.5580 m by 1.1141 m
        (None, Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), 0.5),
        (None, Affine(1e-5, 0, 15, 0, -1e-5, 60), None),  # degrees, or ten times finer than a hair
        (METRES, Affine.identity(), None),
    ],
)
def test_a_pixels_side_is_that_of_a_square_of_its_area(crs, transform, metres):
    found = metres_per_pixel(transform, crs, height=2, width=2)
    assert found == (None if metres is None else pytest.approx(metres, rel=2e-4))


def test_a_square_degree_shrinks_to_nothing_at_the_poles():
    assert metres_per_degree(0) == pytest.approx(110_947, abs=2)
    assert metres_per_degree(90) == pytest.approx(0, abs=1e-3)


def test_an_image_in_feet_has_pixels_in_metres(tmp_path):
    transform = Affine(2, 0, 2_000_000, 0, -2, 500_000)
    with rasterio.open(tmp_path / "feet.tif", "w", driver="GTiff", height=4, width=5, count=1, dtype="uint8",
                       crs=US_FEET, transform=transform) as target:  # fmt: skip
        target.write(np.ones((1, 4, 5), np.uint8))
    assert read_header(tmp_path / "feet.tif").pixel_size == pytest.approx(0.6096, rel=1e-5)
