"""Scenes from files, and scenes seen at another pixel size."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from ann.errors import SceneError
from ann.inference.files import FileScene
from ann.inference.resample import ResampledScene
from ann.inference.scene import ArrayScene
from drawn_scenes import join_blocks, perfect_finder, settings
from maskrcnn.instances.pipeline import find_in_scene


def write(path, pixels, alpha=None, **profile):
    """Write (H, W, C) pixels as a raster file."""
    height, width, bands = pixels.shape
    count = bands + (alpha is not None)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": pixels.dtype,
    } | profile
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.moveaxis(pixels, -1, 0), list(range(1, bands + 1)))
        if alpha is not None:
            target.write(alpha, count)
            target.colorinterp = [ColorInterp.gray] * bands + [ColorInterp.alpha]
    return path


def noise(height, width, bands, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (height, width, bands)).astype(dtype)


def test_windows_bands_and_georeference_are_those_of_the_file(tmp_path):
    pixels = noise(20, 30, 4, np.uint16)
    transform = from_origin(500.0, 800.0, 0.5, 0.5)
    path = write(tmp_path / "scene.tif", pixels, transform=transform, crs="EPSG:32633")
    with FileScene(path) as scene:
        assert (scene.height, scene.width, scene.bands) == (20, 30, 4)
        assert scene.transform == transform and scene.crs.to_epsg() == 32633
        found, valid = scene.read(3, 5, 10, 7)
        np.testing.assert_array_equal(found, pixels[3:13, 5:12])
        assert found.dtype == np.uint16 and valid.all()
    with FileScene(path, bands=(4, 1)) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 20, 30)[0], pixels[..., [3, 0]])


def test_cells_without_data_are_known_by_value_alpha_band_or_nan(tmp_path):
    pixels = noise(8, 9, 2)
    pixels[2, 3] = 0
    with FileScene(write(tmp_path / "value.tif", pixels, nodata=0)) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 8, 9)[1], pixels[..., 0] > 0)
    alpha = np.full((8, 9), 255, dtype=np.uint8)
    alpha[:, 4:] = 0
    for bands in (1, 2, 3, 4):
        with FileScene(write(tmp_path / f"alpha_{bands}.tif", noise(8, 9, bands), alpha)) as scene:
            assert scene.bands == bands
            np.testing.assert_array_equal(scene.read(0, 0, 8, 9)[1], alpha > 0)
    floats = noise(8, 9, 2, np.float32)
    floats[5, 6, 1] = np.nan
    with FileScene(write(tmp_path / "nan.tif", floats)) as scene:
        assert np.argwhere(~scene.read(0, 0, 8, 9)[1]).tolist() == [[5, 6]]


def test_a_band_that_does_not_exist_is_an_error(tmp_path):
    path = write(tmp_path / "scene.tif", noise(8, 9, 2))
    with pytest.raises(SceneError, match=r"bands 1 to 2, asked for \[3\]"):
        FileScene(path, bands=(1, 3))
    with pytest.raises(SceneError, match="asked for none"):
        FileScene(path, bands=())


def test_a_missing_or_foreign_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SceneError, match=r"nowhere\.tif"):
        FileScene(tmp_path / "nowhere.tif")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(SceneError, match=r"text\.tif"):
        FileScene(tmp_path / "text.tif")


@pytest.mark.parametrize("driver, suffix", [("GTiff", "tif"), ("PNG", "png"), ("JPEG", "jpg")])
def test_a_truncated_file_is_an_error_and_never_a_grey_scene(tmp_path, driver, suffix):
    path = write(tmp_path / f"scene.{suffix}", noise(300, 300, 3), driver=driver)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SceneError, match=f"scene.{suffix}"), FileScene(path) as scene:
        scene.read(0, 0, 300, 300)


def test_damaged_data_inside_of_a_jpeg_is_an_error(tmp_path):
    path = write(tmp_path / "scene.jpg", noise(300, 300, 3), driver="JPEG")
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + content[-2:])  # the end mark is there, the rows are not
    with pytest.raises(SceneError, match=r"scene\.jpg"), FileScene(path) as scene:
        scene.read(0, 0, 300, 300)


def test_a_file_goes_through_the_pipeline_with_its_holes(tmp_path):
    labels = np.zeros((50, 60), dtype=np.int32)
    labels[10:40, 5:50] = 1
    pixels = noise(50, 60, 1)
    pixels[20, 20] = 0
    labels[20, 20] = 0
    with FileScene(write(tmp_path / "scene.tif", pixels, nodata=0)) as scene:
        blocks = find_in_scene(scene, perfect_finder(labels), settings())
        ids, instances = join_blocks(blocks, labels.shape)
    np.testing.assert_array_equal(ids, labels)
    assert instances[0].cells == 30 * 45 - 1


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.0, 1.6, 2.0, 3.3])
def test_resampled_windows_join_without_a_seam(factor, monkeypatch):
    pixels = noise(57, 71, 2, np.uint16)
    valid = np.random.default_rng(1).random((57, 71)) < 0.9
    scene = ResampledScene(ArrayScene(pixels, valid), factor)
    assert (scene.height, scene.width) == (round(57 / factor), round(71 / factor))
    whole, whole_valid = scene.read(0, 0, scene.height, scene.width)
    assert whole.dtype == np.uint16
    monkeypatch.setattr("ann.inference.resample.SOURCE_PIXELS_AT_ONCE", 500)
    for row in range(0, scene.height, 5):
        for column in range(0, scene.width, 6):
            height, width = min(5, scene.height - row), min(6, scene.width - column)
            part, part_valid = scene.read(row, column, height, width)
            np.testing.assert_array_equal(part, whole[row : row + height, column : column + width])
            np.testing.assert_array_equal(
                part_valid, whole_valid[row : row + height, column : column + width]
            )


def test_factor_one_changes_nothing_and_flat_images_stay_flat():
    pixels = noise(11, 13, 3)
    same, valid = ResampledScene(ArrayScene(pixels), 1.0).read(0, 0, 11, 13)
    np.testing.assert_array_equal(same, pixels)
    assert valid.all()
    flat = np.full((20, 20, 1), 1234.5, dtype=np.float32)
    for factor in (0.3, 2.5):
        scene = ResampledScene(ArrayScene(flat), factor)
        np.testing.assert_allclose(scene.read(0, 0, scene.height, scene.width)[0], 1234.5, rtol=1e-6)


def test_enlarging_is_bilinear_between_pixel_centres():
    scene = ResampledScene(ArrayScene(np.array([[[0.0], [8.0]]])), 0.5)
    found, _ = scene.read(0, 0, 2, 4)
    assert found[0, :, 0].tolist() == [0.0, 2.0, 6.0, 8.0]


def test_shrinking_counts_every_pixel():
    stripes = np.zeros((40, 40, 1), dtype=np.uint8)
    stripes[:, ::2] = 200
    found, _ = ResampledScene(ArrayScene(stripes), 4.0).read(0, 0, 10, 10)
    assert abs(found[2:-2, 2:-2].astype(int) - 100).max() <= 1


def test_pixels_without_data_do_not_leak_into_their_neighbours():
    pixels = np.full((20, 20, 1), 100, dtype=np.uint8)
    pixels[:, 10:] = 255
    valid = np.ones((20, 20), dtype=bool)
    valid[:, 10:] = False
    found, found_valid = ResampledScene(ArrayScene(pixels, valid), 2.0).read(0, 0, 10, 10)
    np.testing.assert_array_equal(found_valid, np.arange(10) < np.full((10, 1), 5))
    assert set(np.unique(found[found_valid])) == {100}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_infinite_pixels_do_not_spread_when_resampled(value):
    pixels = np.full((20, 20, 2), 7.0)
    pixels[4, 4, 1] = value
    for factor in (0.5, 2.0):
        scene = ResampledScene(ArrayScene(pixels), factor)
        found, valid = scene.read(0, 0, scene.height, scene.width)
        assert valid.sum() >= valid.size - 4
        np.testing.assert_allclose(found[valid], 7.0)


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), 1000.0])
def test_an_impossible_factor_is_an_error(factor):
    with pytest.raises(SceneError, match=r"factor|vanishes"):
        ResampledScene(ArrayScene(noise(10, 10, 1)), factor)
