"""Cropped masks, windows and the shapes that labels are kept as."""

from __future__ import annotations

import numpy as np
import pytest

from ann.data.outlines.masks import CroppedMask, crop_mask, intersect_window, paste
from ann.data.outlines.shapes import PackedMask, Polygons
from ann.data.pixels.windows import Window, grid_windows


def ring(height=7, width=9):
    full = np.zeros((height, width), bool)
    full[2:6, 3:8] = True
    full[3:5, 4:7] = False
    return full


def test_a_cropped_mask_is_tight_and_pastes_back():
    mask = crop_mask(ring())
    assert mask.box == (2, 3, 6, 8)
    assert mask.area == 14
    np.testing.assert_array_equal(paste(mask, 7, 9), ring())


def test_an_empty_mask_is_none():
    assert crop_mask(np.zeros((3, 4), bool)) is None
    assert crop_mask(np.zeros((0, 4), bool)) is None


def test_pasting_cuts_off_what_is_outside():
    mask = CroppedMask(row=-1, column=2, pixels=np.ones((3, 3), bool))
    np.testing.assert_array_equal(paste(mask, 2, 4), [[0, 0, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("box", [(0, 0, 7, 9), (1, 2, 4, 5), (5, 7, 7, 9), (3, 4, 5, 7), (0, 0, 2, 3)])
def test_every_shape_gives_the_part_in_a_window(box):
    y1, x1, y2, x2 = box
    window = Window(row=y1, column=x1, height=y2 - y1, width=x2 - x1)
    expected = crop_mask(ring()[y1:y2, x1:x2])
    outer = np.array([(3, 2), (8, 2), (8, 6), (3, 6)], float)
    hole = np.array([(4, 3), (7, 3), (7, 5), (4, 5)], float)
    for found in (
        intersect_window(crop_mask(ring()), window),
        PackedMask.pack(crop_mask(ring())).inside(window),
        Polygons.from_parts(((outer, hole),)).inside(window),
    ):
        if expected is None:
            assert found is None
        else:
            assert found.box == expected.box
            np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_shapes_know_their_area_beyond_the_image():
    outline = np.array([(-4, 0), (4, 0), (4, 2), (-4, 2)], float)
    shape = Polygons.from_parts(((outline,),))
    assert (shape.box, shape.area) == ((0, -4, 2, 4), 16)
    assert PackedMask.pack(crop_mask(ring())).area == 14


def test_overlapping_parts_of_one_instance_are_united():
    first = np.array([(0, 0), (4, 0), (4, 4), (0, 4)], float)
    shape = Polygons.from_parts(((first,), (first + 2,)))
    assert shape.inside(Window(row=0, column=0, height=8, width=8)).area == 16 + 16 - 4


def test_packing_a_large_mask_takes_few_bytes():
    mask = CroppedMask(row=0, column=0, pixels=np.ones((2000, 2000), bool))
    assert len(PackedMask.pack(mask).bits) < 10_000


@pytest.mark.parametrize("shape", [(10, 10), (7, 23), (64, 3), (5, 5)])
def test_grid_windows_cover_every_pixel_with_one_size(shape):
    seen = np.zeros(shape, int)
    sizes = set()
    for window in grid_windows(*shape, 5, 7):
        y1, x1, y2, x2 = window.box
        seen[y1:y2, x1:x2] += 1
        sizes.add((window.height, window.width))
    assert seen.min() >= 1
    assert sizes == {(min(5, shape[0]), min(7, shape[1]))}


def test_a_window_has_pixels():
    with pytest.raises(ValueError, match="at least one pixel"):
        Window(row=0, column=0, height=0, width=3)
