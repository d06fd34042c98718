"""Scaling of pixels and the statistics it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from ann.data.readers.formats import open_dataset
from ann.data.samples.scaling import BLOCK_SIDE, band_statistics, check_input, scale_pixels
from ann.errors import DatasetError
from labelled_files import noise, rectangle, write_raster


def test_pixels_are_scaled_band_by_band():
    image = np.array([[[10, 20], [30, 40]]], np.uint8)
    scaled = scale_pixels(image, (10, 20), (1, 5))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, [[[0, 0], [20, 4]]])
    np.testing.assert_array_equal(image, [[[10, 20], [30, 40]]])


def test_legacy_scaling_is_the_plain_difference():
    image = noise(9, 7)
    means = np.array((123.7, 116.8, 103.9), np.float32)
    np.testing.assert_array_equal(scale_pixels(image, means, (1, 1, 1)), image.astype(np.float32) - means)


def test_a_turned_image_is_scaled_like_its_copy():
    image = np.rot90(noise(9, 7)[:, ::-1])
    np.testing.assert_array_equal(
        scale_pixels(image, (1, 2, 3), (4, 5, 6)), scale_pixels(image.copy(), (1, 2, 3), (4, 5, 6))
    )


def test_bands_must_agree():
    with pytest.raises(ValueError, match="Expected 2 bands"):
        scale_pixels(np.zeros((2, 2, 3)), (0, 0), (1, 1))


@pytest.fixture
def dataset(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        image = noise(30, 40, bands=2, seed=seed).astype(np.float32) * (1, 1e-4) + (1e6, seed)
        image[:10] = -1
        write_raster(tmp_path / name / f"{name}.tif", image.astype(np.float64), nodata=-1)
    write_raster(tmp_path / "a" / "a-field-1.png", rectangle(30, 40, (1, 1, 9, 9)))
    return open_dataset(tmp_path, ["field"])


def test_statistics_are_those_of_all_cells_with_data(dataset):
    pixels = np.concatenate([image.read(None).image[10:].reshape(-1, 2) for image in dataset.images])
    mean, deviation = band_statistics(dataset.images)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(deviation, pixels.std(axis=0), rtol=1e-6)


def test_statistics_are_fixed_by_the_seed_and_limited(dataset):
    reads = []

    def counted(image):
        from dataclasses import replace

        return replace(image, read=lambda window: (reads.append(image.name), image.read(window))[1])

    first = band_statistics([counted(image) for image in dataset.images], sample_limit=2, seed=4)
    assert len(reads) == 2
    assert first == band_statistics(dataset.images, sample_limit=2, seed=4)


def test_a_flat_band_has_scale_one(tmp_path):
    write_raster(tmp_path / "a" / "a.tif", np.full((9, 9, 1), 7, np.uint8))
    write_raster(tmp_path / "a" / "a-field-1.png", rectangle(9, 9, (1, 1, 5, 5)))
    assert band_statistics(open_dataset(tmp_path, ["field"]).images) == ((7.0,), (1.0,))


def test_images_without_any_data_are_refused(tmp_path):
    write_raster(tmp_path / "a" / "a.tif", np.full((9, 9, 1), 7, np.uint8), nodata=7)
    write_raster(tmp_path / "a" / "a-field-1.png", rectangle(9, 9, (1, 1, 5, 5)))
    with pytest.raises(DatasetError, match="No cell"):
        band_statistics(open_dataset(tmp_path, ["field"]).images)
    with pytest.raises(DatasetError, match="no image"):
        band_statistics([])


def test_where_chance_finds_no_data_statistics_are_those_around_objects(tmp_path):
    side = 4 * BLOCK_SIDE
    image = np.zeros((side, side, 1), np.uint16)
    image[100:130, 3000:3040, 0] = 700
    image[110:120, 3010:3030, 0] = 900
    write_raster(tmp_path / "a" / "a.tif", image, nodata=0, compress="deflate")
    write_raster(tmp_path / "a" / "a-field-1.png", rectangle(side, side, (110, 3010, 120, 3030)))
    images = open_dataset(tmp_path, ["field"]).images
    # 200 cells of 900 among 1200
    expected = (700 + 200 * 200 / 1200,), (200 * np.sqrt(1 / 6 * 5 / 6),)
    np.testing.assert_allclose(band_statistics(images, sample_limit=1), expected, rtol=1e-12)


def test_statistics_with_a_number_for_missing_data_are_refused(tmp_path):
    image = noise(60, 60).astype(np.float32)
    image[:20] = -9999
    write_raster(tmp_path / "a" / "a.tif", image)
    write_raster(tmp_path / "a" / "a-field-1.png", rectangle(60, 60, (30, 30, 40, 40)))
    with pytest.raises(DatasetError, match=r"a\.tif, band 1: 33% .* the value -9999"):
        band_statistics(open_dataset(tmp_path, ["field"]).images)


def test_pixels_that_no_loss_survives_are_named():
    mean, scale = (0.5, 0.5), (0.2, 0.2)
    image = np.random.default_rng(0).random((8, 8, 2)).astype(np.float32)
    check_input(image, mean, scale, "a")
    for value in (-3.4e38, 1e7, np.inf):
        spoilt = image.copy()
        spoilt[3, 4, 1] = value
        with pytest.raises(DatasetError, match="Image a, band 2 has the value"):
            check_input(spoilt, mean, scale, "a")
    check_input(np.full((2, 2, 1), 65535, np.uint16), (123.7,), (1.0,), "legacy scaling of 16 bit")
