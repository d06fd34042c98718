"""The directory format: what is read, and what is refused before any work."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ann.data.outlines.masks import paste
from ann.data.pixels.windows import Window
from ann.data.readers.directories import read_directories
from ann.data.readers.formats import open_dataset
from ann.errors import DatasetError
from labelled_files import noise, rectangle, write_raster, write_scene

HOUSE, BARN = (2, 3, 12, 20), (20, 30, 35, 50)


@pytest.fixture
def root(tmp_path):
    write_scene(tmp_path, "a", [("house", HOUSE), ("barn-roof", BARN), ("house", (0, 40, 9, 60))])
    write_scene(tmp_path, "b", [("barn-roof", BARN)], seed=1)
    return tmp_path


CLASSES = ("house", "barn-roof")


def test_every_instance_of_every_image_is_read(root):
    dataset = open_dataset(root, CLASSES)
    assert dataset.classes == CLASSES
    assert [image.name for image in dataset.images] == ["a/a.png", "b/b.png"]
    assert [image.instance_counts for image in dataset.images] == [(2, 1), (0, 1)]
    assert dataset.instance_counts == (2, 2)
    first = dataset.images[0]
    assert (first.height, first.width, first.bands, first.dtype, first.pixel_size) == (
        40,
        60,
        3,
        "uint8",
        None,
    )
    example = first.read(None)
    np.testing.assert_array_equal(example.image, noise(40, 60))
    assert sorted(zip(example.class_ids, (mask.box for mask in example.masks), strict=True)) == [
        (1, (0, 40, 9, 60)),
        (1, HOUSE),
        (2, BARN),
    ]


def test_masks_may_touch_overlap_and_have_any_value(tmp_path):
    directory = write_scene(tmp_path, "a", [("house", (0, 0, 10, 10)), ("house", (0, 10, 10, 20))])
    write_raster(directory / "a-house-3.png", rectangle(40, 60, (5, 5, 9, 15)) // 255)
    example = open_dataset(tmp_path, ["house"]).images[0].read(None)
    assert [mask.box for mask in example.masks] == [(0, 0, 10, 10), (0, 10, 10, 20), (5, 5, 9, 15)]


def test_a_window_holds_its_pixels_and_what_is_inside_of_each_mask(root):
    image = open_dataset(root, CLASSES).images[0]
    example = image.read(Window(row=7, column=10, height=20, width=30))
    np.testing.assert_array_equal(example.image, noise(40, 60)[7:27, 10:40])
    whole = image.read(None)
    expected = {1: paste(whole.masks[1], 40, 60)[7:27, 10:40], 2: paste(whole.masks[0], 40, 60)[7:27, 10:40]}
    assert set(example.class_ids) == {1, 2}
    for mask, class_id, visible in zip(example.masks, example.class_ids, example.visible, strict=True):
        np.testing.assert_array_equal(paste(mask, 20, 30), expected[int(class_id)])
        assert visible == pytest.approx(expected[int(class_id)].sum() / {1: 170, 2: 300}[int(class_id)])


def test_an_image_without_masks_is_a_negative(root):
    write_scene(root, "empty", [])
    image = open_dataset(root, CLASSES).images[2]
    assert image.instance_counts == (0, 0)
    example = image.read(None)
    assert example.masks == ()
    assert example.class_ids.shape == (0,) and example.class_ids.dtype == np.int32


def test_image_names_may_look_like_masks_and_several_share_a_directory(tmp_path):
    directory = tmp_path / "deep" / "er"
    for name in ("area", "area-north", "area-north-3"):
        write_raster(directory / f"{name}.png", noise(10, 10))
    for name in ("area-north-house-1", "area-north-3-house-1", "area-house-2"):
        write_raster(directory / f"{name}.png", rectangle(10, 10, (0, 0, 3, 4)))
    dataset = read_directories(tmp_path, ["house"])
    assert {image.name: image.instance_counts for image in dataset.images} == {
        "deep/er/area.png": (1,),
        "deep/er/area-north.png": (1,),
        "deep/er/area-north-3.png": (1,),
    }


def test_a_class_may_be_the_end_of_another(tmp_path):
    write_scene(tmp_path, "a", [("house", HOUSE), ("tree-house", BARN)])
    assert open_dataset(tmp_path, ["house", "tree-house"]).instance_counts == (1, 1)


def test_an_all_zero_mask_is_ignored_and_named(root):
    write_raster(root / "a" / "a-house-9.png", rectangle(40, 60, (0, 0, 0, 0)))
    dataset = open_dataset(root, CLASSES)
    assert dataset.images[0].instance_counts == (2, 1)
    assert len(dataset.notes) == 1 and "a-house-9.png" in dataset.notes[0]


def test_geotiffs_of_many_bands_and_16_bits_keep_both(tmp_path):
    image = noise(20, 30, bands=5).astype(np.uint16) * 200
    write_raster(tmp_path / "s" / "s.tif", image)
    write_raster(tmp_path / "s" / "s-field-1.png", rectangle(20, 30, (1, 1, 9, 9)))
    labelled = open_dataset(tmp_path, ["field"]).images[0]
    assert (labelled.bands, labelled.dtype, labelled.pixel_size) == (5, "uint16", 0.5)
    np.testing.assert_array_equal(labelled.read(None).image, image)


def test_cells_without_data_are_zero_and_invalid(tmp_path):
    image = noise(20, 30, bands=2).astype(np.float32)
    image[3, 4, 0] = np.nan
    image[5, 6] = -9999
    write_raster(tmp_path / "s" / "s.tif", image, nodata=-9999)
    write_raster(tmp_path / "s" / "s-field-1.png", rectangle(20, 30, (1, 1, 9, 9)))
    example = open_dataset(tmp_path, ["field"]).images[0].read(None)
    assert np.argwhere(~example.valid).tolist() == [[3, 4], [5, 6]]
    assert (example.image[~example.valid] == 0).all()
    np.testing.assert_array_equal(example.image[example.valid], image[example.valid])


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def spoil_mask_size(root):
    write_raster(root / "a" / "a-house-1.png", rectangle(40, 61, HOUSE))


def spoil_with_mask_alone(root):
    (root / "b" / "b.png").unlink()


def spoil_with_masks_of_another_name_alone(root):
    for number in (1, 2):
        write_raster(root / "lost" / f"lost-shed-{number}.png", rectangle(40, 60, HOUSE))


def spoil_with_unknown_class(root):
    write_raster(root / "b" / "b-shed-1.png", rectangle(40, 60, HOUSE))


def spoil_with_jpeg_mask(root):
    write_raster(root / "b" / "b-house-2.jpg", rectangle(40, 60, HOUSE))


def spoil_with_disguised_jpeg(root):
    write_raster(root / "x.jpg", rectangle(40, 60, HOUSE)).rename(root / "b" / "b-house-2.png")


def spoil_with_second_image(root):
    write_raster(root / "b" / "b.tif", noise(40, 60))


def spoil_bands(root):
    write_raster(root / "c" / "c.png", noise(40, 60, bands=1))


def spoil_image(root):
    cut(root / "b" / "b.png")


def spoil_jpeg(root):
    cut(write_raster(root / "c" / "c.jpg", noise(40, 60)))


def spoil_tiff(root):
    cut(write_raster(root / "c" / "c.tif", noise(400, 600)))


def spoil_with_text(root):
    (root / "b" / "b.png").write_text("no image")


def spoil_with_empty_file(root):
    (root / "b" / "b.png").write_bytes(b"")


def spoil_mask(root):
    cut(root / "b" / "b-barn-roof-1.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_mask_size, r"a-house-1\.png \(40 x 61, its image 40 x 60\)"),
        (spoil_with_mask_alone, r"without an image: .*b-barn-roof-1\.png"),
        (spoil_with_masks_of_another_name_alone, r"without an image: .*lost-shed-1\.png"),
        (spoil_with_unknown_class, r"'shed' \(.*b-shed-1\.png\)"),
        (spoil_with_jpeg_mask, r"must be \.png files, found .*b-house-2\.jpg"),
        (spoil_with_disguised_jpeg, r"b-house-2\.png is called \.png, but its content is JPEG"),
        (spoil_with_second_image, r"b\.png and .*b\.tif have the same name"),
        (spoil_bands, r"number of bands, found 1 in .*c\.png; 3 in"),
        (spoil_image, r"b\.png is truncated"),
        (spoil_jpeg, r"c\.jpg is truncated"),
        (spoil_tiff, r"c\.tif can't be read"),
        (spoil_with_text, r"b\.png can't be read"),
        (spoil_with_empty_file, r"b\.png is truncated \(0 bytes\)"),
        (spoil_mask, r"b-barn-roof-1\.png is truncated"),
    ],
)
def test_bad_files_are_named_on_opening(root, spoil, message):
    spoil(root)
    with pytest.raises(DatasetError) as error:
        open_dataset(root, CLASSES)
    assert re.search(message, str(error.value)), str(error.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["house"], r"'barn-roof' \(.*a-barn-roof-2\.png, .*b-barn-roof-1\.png\)"),
        ([*CLASSES, "shed"], "No instance of 'shed'"),
        (["house", "barn-roof", "house"], "more than once: house"),
        (["house", ""], "must not be empty"),
        ([], "must not be empty"),
        ("house", "list of class names"),
    ],
)
def test_classes_must_be_those_of_the_files(root, classes, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(root, classes)


def test_a_class_whose_masks_are_all_empty_has_no_instance(root):
    write_raster(root / "a" / "a-shed-1.png", rectangle(40, 60, (0, 0, 0, 0)))
    with pytest.raises(DatasetError, match="No instance of 'shed'"):
        open_dataset(root, [*CLASSES, "shed"])


def test_long_lists_of_files_are_cut(root):
    for number in range(12):
        write_raster(root / "b" / f"b-shed-{number}.png", rectangle(40, 60, HOUSE))
    with pytest.raises(DatasetError, match=r"b-shed-11\.png.* and 7 more\)"):
        open_dataset(root, CLASSES)


def test_no_directory_and_no_images_are_said(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(tmp_path / "none", ["house"])
    with pytest.raises(DatasetError, match="No images found"):
        open_dataset(tmp_path, ["house"])
    write_raster(tmp_path / "a.png", noise(9, 9))
    with pytest.raises(DatasetError, match="No labels of house"):
        open_dataset(tmp_path, ["house"])
