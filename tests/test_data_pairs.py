"""Pairs of an image and a raster with the class of each cell: where they are found, and what values mean."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from ann.cluster.prepare import write_dataset
from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import LabelValues, parse_label_values
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


def test_shards_that_would_lose_the_labels_are_not_written(tmp_path):
    write_pair(tmp_path, "a", np.where(NUMBERS == 9, 0, NUMBERS).astype(np.uint8))
    with pytest.raises(DatasetError, match="shards don't hold"):
        write_dataset(
            read(tmp_path), str(tmp_path / "shards"), side=64, validation_share=0.0, overwrite=False
        )
