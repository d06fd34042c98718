"""Which images are one scene: those of overlapping ground, and those of the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_coordinates

from ann.data.ground import overlapping
from ann.data.readers.formats import open_dataset
from ann.data.split import split_dataset
from labelled_files import TRANSFORM, noise, rectangle, write_raster, write_scene


def write_tile(root, name, transform=TRANSFORM, seed=0, crs="EPSG:32632", suffix="tif", size=(80, 100)):
    """An image with a house in its middle."""
    path = root / name / f"{name}.{suffix}"
    write_raster(path, noise(*size, seed=seed), transform=transform, crs=crs)
    write_raster(root / name / f"{name}-house-1.png", rectangle(*size, (3, 5, 9, 15)))


def scenes(root):
    """The names of the images of each scene."""
    found = {}
    for image in open_dataset(root, ["house"]).images:
        found.setdefault(image.source, []).append(image.name.split("/")[0])
    return sorted(found.values())


def shifted(columns, rows):
    return TRANSFORM @ Affine.translation(columns, rows)


def test_tiles_that_overlap_are_one_scene_through_a_chain(tmp_path):
    for number, columns in enumerate((0, 90, 180, 400)):
        write_tile(tmp_path, f"t{number}", shifted(columns, 0), seed=number)
    assert scenes(tmp_path) == [["t0", "t1", "t2"], ["t3"]]


@pytest.mark.parametrize("gap", [0, -1e-7, 1e-7, -1])
def test_tiles_that_share_a_border_are_scenes_of_their_own(tmp_path, gap):
    for number, (columns, rows) in enumerate(((0, 0), (100 + gap, 0), (0, 80 + gap))):
        write_tile(tmp_path, f"t{number}", shifted(columns, rows), seed=number)
    assert scenes(tmp_path) == [["t0"], ["t1"], ["t2"]]


def test_a_small_image_inside_of_a_large_one_belongs_to_it(tmp_path):
    write_tile(tmp_path, "large", size=(800, 1000))
    write_tile(tmp_path, "small", shifted(700, 500), seed=1)
    write_tile(tmp_path, "away", shifted(1200, 0), seed=2)
    assert scenes(tmp_path) == [["away"], ["large", "small"]]


def test_ground_is_compared_across_coordinate_systems(tmp_path):
    write_tile(tmp_path, "utm32")
    (x,), (y,) = transform_coordinates(CRS.from_epsg(32632), CRS.from_epsg(32633), [500_020], [5_999_990])
    write_tile(tmp_path, "utm33", Affine(0.5, 0, x, 0, -0.5, y), seed=1, crs="EPSG:32633")
    write_tile(tmp_path, "away", Affine(0.5, 0, x + 900, 0, -0.5, y), seed=2, crs="EPSG:32633")
    assert scenes(tmp_path) == [["away"], ["utm32", "utm33"]]


def test_rotated_images_overlap_where_their_ground_does_and_not_where_boxes_around_it_do(tmp_path):
    turned = TRANSFORM @ Affine.translation(100, 0) @ Affine.rotation(45)
    write_tile(tmp_path, "turned", turned, size=(100, 100))
    write_tile(tmp_path, "corner", shifted(30, 115), seed=1, size=(20, 40))  # inside of its box alone
    write_tile(tmp_path, "inside", shifted(95, 60), seed=2, size=(80, 80))
    assert scenes(tmp_path) == [["corner"], ["inside", "turned"]]


def test_one_image_under_several_names_and_stored_in_several_ways_is_one_scene(tmp_path):
    write_scene(tmp_path, "a", [("house", (1, 1, 9, 9))], seed=3)
    write_scene(tmp_path, "b", [("house", (1, 1, 9, 9))], seed=4)
    write_scene(tmp_path, "copy", [], seed=3)
    write_raster(
        tmp_path / "wide" / "wide.tif",
        noise(40, 60, seed=3),
        transform=Affine.identity(),
        crs=None,
        compress="deflate",
        tiled=True,
        blockxsize=16,
        blockysize=16,
    )
    assert scenes(tmp_path) == [["a", "copy", "wide"], ["b"]]


def test_images_of_one_value_are_not_one_scene(tmp_path):
    for name in ("a", "b"):
        write_raster(tmp_path / name / f"{name}.png", np.full((20, 30, 3), 7, np.uint8))
        write_raster(tmp_path / name / f"{name}-house-1.png", rectangle(20, 30, (1, 1, 9, 9)))
    assert scenes(tmp_path) == [["a"], ["b"]]


def test_copies_of_one_image_alone_are_cut_alike(tmp_path):
    for name in ("a", "b"):
        write_scene(tmp_path, name, [("house", (1, 1, 30, 290))], size=(40, 300), seed=3)
    split = split_dataset(open_dataset(tmp_path, ["house"]), 0.25, seed=1)
    parts = [{image.name.partition("[")[2] for image in side} for side in (split.images, split.validation)]
    assert len(parts[1]) == 1 and parts[0].isdisjoint(parts[1])


def test_no_ground_of_overlapping_tiles_stands_on_both_sides(tmp_path):
    for row in range(3):
        for column in range(4):
            write_tile(tmp_path, f"t{row}{column}", shifted(80 * column, 64 * row), seed=4 * row + column)
    split = split_dataset(open_dataset(tmp_path, ["house"]), 0.25, seed=1)
    sides = []
    for images in (split.images, split.validation):
        covered = np.zeros((3 * 80, 4 * 100), bool)
        for image in images:
            left, top = (image.place.transform.c - 500_000) * 2, (6_000_000 - image.place.transform.f) * 2
            covered[int(top) : int(top) + image.height, int(left) : int(left) + image.width] = True
        sides.append(covered)
    assert not (sides[0] & sides[1]).any()
    assert 0.1 < sides[1].sum() / (sides[0] | sides[1]).sum() < 0.5


def test_overlapping_areas_are_those_that_comparing_all_pairs_finds():
    generator = np.random.default_rng(5)
    low = generator.uniform(0, 100, (300, 2))
    high = low + generator.choice([0.5, 4, 60], (300, 1)) * generator.uniform(0.5, 1, (300, 2))
    corners = np.stack(
        [low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], axis=1
    )
    corners[7] = corners[3]
    expected = {
        (a, b)
        for a in range(300)
        for b in range(a + 1, 300)
        if (low[a] < high[b]).all() and (low[b] < high[a]).all() and 7 not in (a, b)
    }
    found = {tuple(sorted(pair)) for pair in overlapping(corners)}
    assert {pair for pair in found if 7 not in pair} == expected
    assert (3, 7) in found


def test_many_tiles_are_compared_in_time_in_proportion_to_them():
    rows, columns = np.divmod(np.arange(20_000), 200)
    low = np.stack([columns * 90.0, rows * 90.0], axis=1)
    corners = low[:, None] + np.array([(0, 0), (100, 0), (100, 100), (0, 100)], float)
    assert sum(1 for _ in overlapping(corners)) == 2 * (200 * 99 + 199 * 100 + 2 * 199 * 99) // 2
