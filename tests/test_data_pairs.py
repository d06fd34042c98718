"""Pairs of an image and a raster with the class of each cell: where they are found, and what values mean."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from ann.cluster.prepare import check_portable, write_dataset
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import LabelValues, parse_label_values
from ann.data.pixels.windows import Window
from ann.data.readers.formats import open_dataset
from ann.data.readers.pairs import find_pairs, read_pairs
from ann.errors import DatasetError
from labelled_files import TRANSFORM, noise, write_raster

SIZE = (40, 60)
CLASSES = ("road", "water")
NUMBERS = np.zeros(SIZE, np.uint8)
NUMBERS[4:10], NUMBERS[20:30, 5:50], NUMBERS[35:] = 1, 2, 9  # 9 has no meaning, unless it is said
KNOWN = np.where(NUMBERS == 9, UNKNOWN, NUMBERS.astype(np.int16))
COLOURS = {"#FF0000": "road", "#0000FF": "water", "#123456": ""}
PALETTE = np.array([(0x12, 0x34, 0x56), (255, 0, 0), (0, 0, 255)], np.uint8)


def write_pair(root, name, labels, seed=0, suffix=".tif", **profile):
    write_raster(root / "images" / f"{name}.tif", noise(*SIZE, seed=seed))
    return write_raster(root / "labels" / f"{name}{suffix}", labels, **profile)


def read(root, values=None, classes=CLASSES):
    return read_pairs(root, find_pairs(root), classes, values or LabelValues(ids={}))


def classes_of(dataset, index=0):
    return dataset.images[index].read().class_raster


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_the_no_data_value_of_a_label_raster_leaves_cells_out_of_any_number_of_classes(tmp_path, dtype):
    write_pair(tmp_path, "a", NUMBERS.astype(dtype), nodata=9)
    np.testing.assert_array_equal(classes_of(read(tmp_path)), KNOWN)


def test_cells_that_are_not_a_number_are_left_out(tmp_path):
    labels = np.where(NUMBERS == 9, np.nan, NUMBERS).astype(np.float32)
    write_pair(tmp_path, "a", labels, nodata=float("nan"))
    np.testing.assert_array_equal(classes_of(read(tmp_path)), KNOWN)


def test_a_value_without_a_meaning_is_named(tmp_path):
    write_pair(tmp_path, "a", NUMBERS)
    with pytest.raises(DatasetError, match="mean no class: 9"):
        read(tmp_path)
    ignored = read(tmp_path, parse_label_values({}, ["9"], CLASSES))
    np.testing.assert_array_equal(classes_of(ignored), KNOWN)


@pytest.mark.parametrize("form", ["bands", "palette", "alpha"])
def test_colours_mean_classes_however_they_are_stored(tmp_path, form):
    numbers = np.where(NUMBERS == 9, 0, NUMBERS).astype(np.uint8)
    path = write_pair(tmp_path, "a", PALETTE[numbers], suffix=".png")
    if form == "palette":
        image = Image.fromarray(numbers)
        image.putpalette(PALETTE.tobytes())
        image.save(path)
    if form == "alpha":
        write_raster(path, np.dstack([PALETTE[numbers], np.full(SIZE, 255, np.uint8)]))
    dataset = read(tmp_path, parse_label_values(COLOURS, [], CLASSES))
    np.testing.assert_array_equal(classes_of(dataset), numbers)
    assert dataset.instance_counts == (int((numbers == 1).sum()), int((numbers == 2).sum()))


def test_greys_with_transparency_are_colours_too(tmp_path):
    grey = np.where(NUMBERS == 1, 255, 0).astype(np.uint8)
    write_pair(tmp_path, "a", np.dstack([grey, np.full(SIZE, 255, np.uint8)]), suffix=".png")
    values = parse_label_values({"#FFFFFF": "road", "#000000": ""}, [], ("road",))
    np.testing.assert_array_equal(classes_of(read(tmp_path, values, ("road",))), NUMBERS == 1)


def test_images_beside_labels_of_other_formats_are_no_pairs(tmp_path):
    write_raster(tmp_path / "images" / "a.jpg", noise(*SIZE))
    for name in ("annotations", "labels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "instances.json").write_text("{}")
    assert find_pairs(tmp_path) == []


def test_pairs_are_found_behind_links_once_and_not_in_hidden_folders(tmp_path):
    write_pair(tmp_path / "elsewhere", "a", NUMBERS)
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "data")
    write_pair(tmp_path / "data" / ".trash", "b", NUMBERS)
    write_pair(tmp_path / "data" / "__MACOSX", "b", NUMBERS)
    assert [pair.image.name for pair in find_pairs(tmp_path / "data")] == ["a.tif"]


def test_an_image_without_labels_and_the_reverse_are_named(tmp_path):
    write_pair(tmp_path, "a", NUMBERS)
    write_raster(tmp_path / "images" / "b.tif", noise(*SIZE))
    with pytest.raises(DatasetError, match="images without a label raster"):
        find_pairs(tmp_path)
    (tmp_path / "images" / "b.tif").rename(tmp_path / "labels" / "c.tif")
    with pytest.raises(DatasetError, match="label rasters without an image"):
        find_pairs(tmp_path)


OTHER_SIZE = np.ones((SIZE[0], SIZE[1] // 2), np.uint8)
ROADS = np.ones(SIZE, np.uint8)


@pytest.mark.parametrize(
    ("labels", "profile", "words"),
    [
        (OTHER_SIZE, {}, "has 40 x 30 cells, its image .* 40 x 60"),
        (ROADS, {"transform": TRANSFORM @ Affine.translation(5, 0)}, "lies elsewhere than its image"),
        (ROADS, {"crs": "EPSG:3857"}, "has another reference system"),
        (ROADS * 7, {}, "mean no class: 7"),
        (ROADS * 0.5, {}, "has fractions"),
        (ROADS * 0, {}, "No instance of 'road'"),
        (ROADS, {}, "All 2400 labelled cells are of the class 'road'"),
        (ROADS, {"nodata": 1}, "No cell of .* has a label that counts"),
    ],
    ids=["size", "place", "system", "value", "fractions", "no class", "one class only", "all ignored"],
)
def test_labels_that_do_not_fit_are_refused_with_the_reason(tmp_path, labels, profile, words):
    write_pair(tmp_path, "a", labels, **profile)
    with pytest.raises(DatasetError, match=words):
        read(tmp_path, classes=("road",))


def test_pairs_on_the_same_ground_are_one_scene(tmp_path):
    labels = np.where(NUMBERS == 9, 0, NUMBERS).astype(np.uint8)
    for number, name in enumerate("abcd"):
        write_pair(tmp_path, name, labels, seed=number)
    beside = TRANSFORM @ Affine.translation(SIZE[1], 0)
    for name in ("c", "d"):
        write_raster(tmp_path / "images" / f"{name}.tif", noise(*SIZE, seed=9), transform=beside)
        write_raster(tmp_path / "labels" / f"{name}.tif", labels, transform=beside)
    sources = [image.source for image in read(tmp_path).images]
    assert sources[0] == sources[1] != sources[2] == sources[3]


@pytest.fixture
def shards(tmp_path):
    """Two pairs, the second without data at the left, in shards of tiles of half their width."""
    write_pair(tmp_path / "pairs", "a", NUMBERS, nodata=9)
    write_pair(tmp_path / "pairs", "b", np.flipud(NUMBERS), seed=1, nodata=9)
    image = np.concatenate([noise(*SIZE, seed=1), np.full((*SIZE, 1), 255, np.uint8)], axis=-1)
    image[:, :10, 3] = 0
    write_raster(tmp_path / "pairs" / "images" / "b.tif", image, photometric="rgb", alpha="yes")
    dataset = read(tmp_path / "pairs")
    location = tmp_path / "shards"
    write_dataset(dataset, str(location), side=40, validation_share=0.0, overwrite=False)
    return dataset, location


def test_class_rasters_come_back_from_shards(shards):
    dataset, location = shards
    stored = open_dataset(location, CLASSES)
    assert stored.labels == dataset.labels == "cells"
    assert stored.instance_counts == (660, 900 - 50)  # b has no data in ten columns
    window = Window(row=3, column=2, height=30, width=25)
    check_portable(dataset)  # both can be read on other machines
    check_portable(stored)
    for number, tile in enumerate(pickle.loads(pickle.dumps(stored.images))):
        left = 30 * (number % 2)
        original = dataset.images[number // 2].read(Window(row=0, column=left, height=40, width=30))
        part = dataset.images[number // 2].read(replace(window, column=left + 2))
        for one, other in ((tile.read(None), original), (tile.read(window), part)):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.class_raster, other.class_raster)
        assert len(tile.boxes) == len(tile.class_ids) and set(tile.class_ids) <= {1, 2}


def test_shards_of_class_rasters_count_classes_in_any_order(shards):
    dataset, location = shards
    stored = open_dataset(location, ("water", "road"))
    assert stored.instance_counts == (850, 660)
    expected = np.array([0, 2, 1, UNKNOWN])[dataset.images[0].read(None).class_raster[:, :30]]
    np.testing.assert_array_equal(stored.images[0].read(None).class_raster, expected)
