"""Scaling of pixels and the statistics it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from ann.data.readers.formats import open_dataset
from ann.data.samples.scaling import band_statistics, scale_pixels
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
