"""Values that spoil a training are found before it and named by image and band; others are let through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine

from ann.data.readers.formats import open_dataset
from ann.data.samples.scaling import band_statistics
from ann.data.samples.values import WHOLE_PIXELS, check_values, find_fill
from ann.errors import DatasetError
from labelled_files import noise, rectangle, write_raster


def scene(root, name, image, **profile):
    """An image with one labelled object."""
    write_raster(root / name / f"{name}.tif", image, **profile)
    write_raster(root / name / f"{name}-field-1.png", rectangle(*image.shape[:2], (30, 30, 40, 40)))


def reflectance(side=64, dtype=np.float32, high=1.0, seed=0):
    """(side, side, 3) from 0 to `high`."""
    return (np.random.default_rng(seed).random((side, side, 3)) * high).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "high", "value"),
    [
        (np.float32, 1, -3.4028235e38),
        (np.float32, 1, 1e38),
        (np.float32, 1, 9.969209968386869e36),  # of NetCDF
        (np.float32, 1, -9999),
        (np.float32, 300, -999),
        (np.float64, 1, -1.7976931348623157e308),
        (np.float64, 1, 1e20),
        (np.float32, 3000, 65535),
        (np.int16, 5000, -9999),
        (np.int16, 10000, -32768),
        (np.int16, 10000, -32767),
        (np.uint16, 4000, 65535),
        (np.int32, 100, -2147483648),
    ],
)
def test_numbers_for_missing_data_are_refused_by_image_band_and_value(tmp_path, dtype, high, value):
    scene(tmp_path, "good", reflectance(dtype=dtype, high=high))
    image = reflectance(dtype=dtype, high=high, seed=1)
    image[:, 60:, 1] = value
    scene(tmp_path, "spoilt", image)
    images = open_dataset(tmp_path, ["field"]).images
    with pytest.raises(DatasetError) as error:
        check_values(images)
    assert "spoilt.tif, band 2: 6% of the pixels" in str(error.value)
    named = str(error.value).split("have the value ")[1].split(", all others")[0]
    assert dtype(named) == dtype(value)
    # once it is declared, it is no value of the image
    scene(tmp_path, "spoilt", image, nodata=dtype(value).item())
    images = open_dataset(tmp_path, ["field"]).images
    check_values(images)
    mean, deviation = band_statistics(images)
    assert mean == pytest.approx((high / 2,) * 3, rel=0.05)
    assert deviation == pytest.approx((high / 12**0.5,) * 3, rel=0.05)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(65536, dtype=np.uint16),  # a stretch over all that 16 bit hold
        np.r_[np.arange(40000), [65535] * 5000].astype(np.uint16),  # clouds that saturate the sensor
        np.r_[np.arange(9000) % 3000, 65535].astype(np.uint16),  # one glint
        np.r_[[0] * 500, np.arange(3000)].astype(np.uint16),  # a black border can't be told from shadow
        np.r_[[0] * 500, [65535] * 500].astype(np.uint16),  # a mask
        np.full(100, 65535, np.uint16),
        np.linspace(-1, 1, 1000),
        np.r_[[-1.0] * 50, np.linspace(0.1, 0.9, 1000)],
        np.linspace(-9999, 9999, 1000),
        np.r_[np.random.default_rng(0).exponential(0.1, 10000), 500.0],  # a corner reflector of radar
        np.zeros(10),
        np.r_[np.zeros(1000), 1.0],
        np.zeros(0, np.float32),
    ],
)
def test_measured_values_are_let_through(values):
    assert find_fill(values) is None


def test_a_band_that_holds_nothing_else_is_refused():
    assert find_fill(np.full(50, -9999, np.int16)).share == 1
    assert find_fill(np.r_[np.zeros(50), [-9999.0] * 10]).value == -9999


def test_fill_is_seen_although_resampling_mixed_it_with_what_lies_beside():
    measured = np.random.default_rng(0).random(10_000) * 3000
    mixed = np.linspace(-9998, 3000, 300)
    assert find_fill(np.r_[measured, mixed, [-9999.0] * 500]).value == -9999


def test_one_number_beyond_all_reason_is_enough():
    values = np.random.default_rng(0).random(100_000).astype(np.float32)
    values[7] = 1e30
    assert find_fill(values).value == np.float32(1e30)
    values[7] = -1e6  # ten thousand times as far away as the others spread
    assert find_fill(values).value == -1e6


def test_8_bit_images_are_not_read(tmp_path):
    scene(tmp_path, "s", noise(64, 64))
    image = open_dataset(tmp_path, ["field"]).images[0]
    check_values([replace(image, read=None)])


@pytest.mark.parametrize("place", [np.s_[:40], np.s_[:, -40:], np.s_[900:1100, 900:1100]])
def test_large_images_are_looked_at_along_the_border_and_inside(tmp_path, place):
    side = 2000
    assert side**2 > WHOLE_PIXELS
    image = reflectance(side, np.uint16, 3000)
    image[place] = 65535
    scene(tmp_path, "s", image)
    reads = []
    found = open_dataset(tmp_path, ["field"]).images[0]

    def read(window):
        reads.append(window.height * window.width)
        return found.read(window)

    with pytest.raises(DatasetError, match="65535"):
        check_values([replace(found, read=read)])
    assert sum(reads) < 0.3 * side**2


def test_of_very_many_images_some_are_looked_at(tmp_path):
    scene(tmp_path, "s", reflectance())
    image = open_dataset(tmp_path, ["field"]).images[0]
    reads = []
    counted = replace(image, read=lambda window: (reads.append(1), image.read(window))[1])
    check_values([counted] * 500, limit=20)
    assert len(reads) == 20


def test_8_and_16_bit_are_not_mixed(tmp_path):
    scene(tmp_path, "a", noise(64, 64))
    scene(tmp_path, "b", noise(64, 64).astype(np.uint16) * 30)
    with pytest.raises(DatasetError, match=r"a\.tif is uint8, .*b\.tif is uint16"):
        open_dataset(tmp_path, ["field"])


def test_types_whose_values_lie_in_different_ranges_are_not_mixed(tmp_path):
    scene(tmp_path, "a", reflectance())
    scene(tmp_path, "b", reflectance(dtype=np.uint16, high=10_000))
    images = open_dataset(tmp_path, ["field"]).images
    with pytest.raises(DatasetError, match=r"band 1 is uint16 up to 99\d\d in .*b\.tif, float32 up to 0\.99"):
        check_values(images)
    scene(tmp_path, "a", reflectance(high=9000))
    check_values(open_dataset(tmp_path, ["field"]).images)


def test_pixel_sizes_that_differ_much_are_refused_and_little_are_noted(tmp_path):
    def sized(name, size):
        scene(tmp_path, name, noise(64, 64), transform=Affine(size, 0, 500_000, 0, -size, 6_000_000))

    sized("a", 0.5)
    sized("b", 0.6)
    assert not open_dataset(tmp_path, ["field"]).notes
    sized("b", 1)
    (note,) = open_dataset(tmp_path, ["field"]).notes
    assert "a.tif has pixels of 0.5 map units" in note and "b.tif of 1" in note
    sized("b", 5)
    with pytest.raises(DatasetError, match=r"a\.tif has pixels of 0\.5 map units, .*b\.tif of 5"):
        open_dataset(tmp_path, ["field"])
