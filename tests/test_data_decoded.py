"""Images that are decoded as a whole stay in memory, but only so many."""

from __future__ import annotations

import os

import numpy as np

from ann.data.pixels import rasters
from ann.data.pixels.decoded import DecodedImages
from ann.data.pixels.windows import Window
from labelled_files import noise, write_raster


def test_images_not_used_for_longest_are_dropped_when_the_limit_is_reached():
    images = DecodedImages(limit=40)
    for name in "abcd":
        images.put(name, (np.zeros((2, 5, 1), np.uint8), None))
    assert images.get("a") is not None
    images.put("e", (np.zeros((1, 5, 1), np.uint8), np.ones((1, 5), bool)))
    assert [name for name in "abcde" if images.get(name) is not None] == ["a", "c", "d", "e"]
    images.put("large", (np.zeros((11, 1, 1), np.uint8), None))
    assert images.get("large") is None and images.get("a") is not None


def test_a_window_is_read_once_and_again_when_the_file_has_changed(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        rasters, "open_image", lambda path, real=rasters.open_image: opened.append(path) or real(path)
    )
    first, second = (
        noise(40, 60, bands=4, seed=1),
        noise(40, 60, bands=4, seed=2),
    )  # PNG: the last one is alpha
    first[5:9, :30, 3] = 0
    path = write_raster(tmp_path / "image.png", first)
    window = Window(row=3, column=10, height=20, width=30)
    for _ in range(3):
        pixels, valid = rasters.read_pixels(path, window)
        np.testing.assert_array_equal(valid, first[3:23, 10:40, 3] > 0)
        np.testing.assert_array_equal(pixels, first[3:23, 10:40, :3] * valid[..., None])
        pixels[:], valid[:] = 0, False  # what is kept must not change with it
    assert len(opened) == 1
    assert rasters.read_pixels(path, Window(row=20, column=0, height=20, width=60))[1] is None
    write_raster(path, second)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(rasters.read_pixels(path)[0], second[..., :3])
    assert len(opened) == 2
