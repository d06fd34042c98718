"""What lies in folders and what files say of themselves: read as meant by training and detection alike, or
refused by both."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from urllib.parse import quote

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from ann.data.folders import find_files, walk
from ann.data.pixels.rasters import read_header, read_pixels
from ann.data.readers.formats import open_dataset
from ann.errors import DatasetError, SceneError
from ann.inference.files import FileScene
from labelled_files import map_point, noise, rectangle, write_raster, write_scene

HOUSE = (2, 3, 12, 20)
SIZE = (40, 60)
INSIDE = rectangle(*SIZE, HOUSE) > 0


def masks_of(root, class_name="house"):
    """(name, box, area) of every mask of a data set."""
    dataset = open_dataset(root, [class_name])
    return sorted(
        (unicodedata.normalize("NFC", image.name), mask.box, mask.area)
        for image in dataset.images
        for mask in image.read(None).masks
    )


def read_both(path):
    """Pixels and validity as training and as detection read them; both must agree."""
    pixels, valid = read_pixels(path)
    with FileScene(path) as scene:
        seen, seen_valid = scene.read(0, 0, scene.height, scene.width)
    np.testing.assert_array_equal(pixels, seen)
    np.testing.assert_array_equal(np.ones(seen_valid.shape, bool) if valid is None else valid, seen_valid)
    return seen, seen_valid


def refuse_both(path, message):
    """Both refuse, before or on reading, and name the file."""
    with pytest.raises(DatasetError, match=message) as error:
        read_header(path)
        read_pixels(path)
    assert str(path) in str(error.value)
    with pytest.raises(SceneError, match=message) as error, FileScene(path) as scene:
        scene.read(0, 0, scene.height, scene.width)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_images_that_metadata_turns_are_refused(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"image.{suffix}"
    extra = {"tiffinfo": exif} if suffix == "tif" else {"exif": exif}
    Image.fromarray(noise(*SIZE)).save(path, **extra)
    if orientation == 1:
        assert read_both(path)[0].shape == (*SIZE, 3)
    else:
        refuse_both(path, f"orientation {orientation}")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_of_tiff_files_is_found_in_either_order_of_bytes(tmp_path, order):
    path = write_raster(tmp_path / "a.tif", noise(*SIZE), endianness={"<": "little", ">": "big"}[order])
    assert read_both(path)[0].shape == (*SIZE, 3)
    big = write_raster(tmp_path / "b.tif", noise(*SIZE), bigtiff="yes")
    assert read_both(big)[0].shape == (*SIZE, 3)


def test_a_mask_that_metadata_turns_is_refused(tmp_path):
    write_scene(tmp_path, "a", [("house", HOUSE)])
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(rectangle(*SIZE, HOUSE)).save(tmp_path / "a" / "a-house-1.png", exif=exif)
    with pytest.raises(DatasetError, match=r"a-house-1\.png is stored turned"):
        open_dataset(tmp_path, ["house"])


def test_images_with_a_palette_or_with_white_as_zero_are_refused(tmp_path):
    Image.fromarray(noise(*SIZE)).quantize(16).save(tmp_path / "palette.png")
    refuse_both(tmp_path / "palette.png", "palette")
    write_raster(tmp_path / "white.tif", noise(*SIZE, bands=1), photometric="MINISWHITE")
    refuse_both(tmp_path / "white.tif", "white as 0")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_bytes_after_the_end_do_not_matter_and_a_missing_end_does(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    exif = Image.Exif()
    exif[0x010E] = "a thumbnail's end: \xff\xd9"
    Image.fromarray(noise(*SIZE)).save(path, exif=exif)
    content = path.read_bytes()
    path.write_bytes(content + bytes(9000))
    assert read_both(path)[0].shape == (*SIZE, 3)
    path.write_bytes(content[: len(content) // 2] + bytes(9000))
    refuse_both(path, "truncated|can't be read")


def test_damaged_rows_of_a_jpeg_are_refused_by_training_and_detection(tmp_path):
    path = write_raster(tmp_path / "image.jpg", noise(300, 300))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[-2:])
    refuse_both(path, "can't be read")


def grey(path, inside=INSIDE):
    write_raster(path, inside.astype(np.uint8))


def sixteen_bits(path, inside=INSIDE):
    write_raster(path, inside.astype(np.uint16) * 256)


def one_bit(path, inside=INSIDE):
    Image.fromarray(inside).save(path)


def palette(path, outside, colour, inside=INSIDE):
    image = Image.fromarray(inside.astype(np.uint8), mode="P")
    image.putpalette([*outside, *colour])
    image.save(path)


def palette_of_black_and_white(path, inside=INSIDE):
    palette(path, (0, 0, 0), (255, 255, 255), inside)


def palette_of_colours_on_black_as_last(path):
    image = Image.fromarray(np.where(INSIDE, 0, 3).astype(np.uint8), mode="P")
    image.putpalette([255, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0])
    image.save(path)


def transparent_palette(path):
    image = Image.fromarray(np.where(INSIDE, 1, 0).astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 255, 0, 0])
    image.save(path, transparency=0)


def white_on_transparent_white(path, inside=INSIDE):
    colours = np.full((*SIZE, 4), 255, np.uint8)
    colours[..., 3] = inside * 255
    Image.fromarray(colours).save(path)


def black_on_transparent(path):
    colours = np.zeros((*SIZE, 2), np.uint8)
    colours[..., 1] = INSIDE * 255
    Image.fromarray(colours, mode="LA").save(path)


def red_on_black(path):
    write_raster(path, INSIDE[..., None] * np.array([200, 0, 0], np.uint8))


def grey_with_a_transparent_value(path):
    Image.fromarray(np.where(INSIDE, 200, 90).astype(np.uint8)).save(path, transparency=90)


@pytest.mark.parametrize(
    "draw",
    [
        grey,
        sixteen_bits,
        one_bit,
        palette_of_black_and_white,
        palette_of_colours_on_black_as_last,
        transparent_palette,
        white_on_transparent_white,
        black_on_transparent,
        red_on_black,
        grey_with_a_transparent_value,
    ],
)
def test_a_mask_is_what_is_shown_whatever_way_it_is_stored(tmp_path, draw):
    write_raster(tmp_path / "a" / "a.tif", noise(*SIZE))
    draw(tmp_path / "a" / "a-house-1.png")
    assert masks_of(tmp_path) == [("a/a.tif", HOUSE, 170)]


def test_a_palette_without_black_does_not_say_what_is_outside(tmp_path):
    write_raster(tmp_path / "a" / "a.tif", noise(*SIZE))
    palette(tmp_path / "a" / "a-house-1.png", (0, 0, 255), (255, 0, 0))
    with pytest.raises(DatasetError, match=r"a-house-1\.png .*neither black nor transparent"):
        open_dataset(tmp_path, ["house"])


@pytest.mark.parametrize(
    ("dtype", "nodata", "one_band_is_data"),
    [
        ("uint8", 0, True),
        ("uint8", 255, True),
        ("uint16", 65535, False),
        ("float32", 0, True),
        ("float32", -9999, False),
        ("int16", -32768, False),
        ("float32", float("nan"), False),
        ("float64", 1e20, False),
    ],
)
def test_a_no_data_value_that_may_be_a_colour_counts_where_all_bands_have_it(
    tmp_path, dtype, nodata, one_band_is_data
):
    image = noise(*SIZE).clip(1, 254).astype(dtype)
    image[5, 6, 0] = image[7, 8] = nodata
    pixels, valid = read_both(write_raster(tmp_path / "a.tif", image, nodata=nodata))
    expected = np.ones(SIZE, bool)
    expected[7, 8] = False
    expected[5, 6] = one_band_is_data
    np.testing.assert_array_equal(valid, expected)
    assert (pixels[~valid] == 0).all()
    np.testing.assert_array_equal(pixels[valid], image[valid])


def test_an_alpha_band_is_none_of_the_colours_wherever_it_stands(tmp_path):
    colours, alpha = noise(*SIZE), np.where(INSIDE, 255, 0).astype(np.uint8)
    for place in range(4):
        path = tmp_path / f"{place}.tif"
        write_raster(path, np.insert(colours, place, alpha, axis=2), photometric="minisblack", alpha="no")
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.alpha if band == place else ColorInterp.gray for band in range(4)]
        pixels, valid = read_both(path)
        np.testing.assert_array_equal(valid, INSIDE)
        np.testing.assert_array_equal(pixels[INSIDE], colours[INSIDE])


def scatter(root):
    """What lies around in folders without being data."""
    shutil.copytree(root / "a", root / ".ipynb_checkpoints" / "a")
    shutil.copytree(root / "a", root / ".Trash-1000" / "files" / "other")
    shutil.copytree(root / "a", root / "__MACOSX" / "a")
    (root / "a" / ".thumbnails").mkdir()
    write_raster(root / "a" / ".thumbnails" / "x.png", noise(9, 9))
    for folder in (root, root / "a"):
        (folder / "._x.png").write_bytes(b"\0\5\26\7")
        (folder / "._x.json").write_bytes(b"\0\5\26\7")
    (root / "broken.json").write_text('{"images": [')
    (root / "other.json").write_text('{"images": [{"id": 1}], "licence": "none"}')


def mask_set(root):
    write_scene(root, "a", [("house", HOUSE)])


def vector_set(root):
    write_raster(root / "a" / "a.tif", noise(*SIZE))
    y1, x1, y2, x2 = HOUSE
    ring = [map_point(x, y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))]
    feature = {
        "type": "Feature",
        "properties": {"class": "house"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (root / "a" / "a.geojson").write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}},
                "features": [feature],
            }
        )
    )


def coco_set(root, name="a/a.png", file="labels.json", image="a/a.png", number=1):
    write_raster(root / image, noise(*SIZE, seed=number))
    y1, x1, y2, x2 = HOUSE
    content = {
        "images": [{"id": 1, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "house"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
        ],
    }
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


@pytest.mark.parametrize("write", [mask_set, vector_set, coco_set])
def test_what_lies_around_stops_no_kind_of_data_and_is_named(tmp_path, write):
    write(tmp_path)
    before = masks_of(tmp_path)
    assert [box for _, box, _ in before] == [HOUSE]
    scatter(tmp_path)
    assert masks_of(tmp_path) == before
    notes = " ".join(open_dataset(tmp_path, ["house"]).notes)
    assert "broken.json" in notes and "other.json" in notes and "._x" not in notes


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    root, store = tmp_path / "data", tmp_path / "store"
    write_scene(root, "a", [("house", HOUSE)])
    write_scene(store, "b", [("house", HOUSE)], seed=1)
    os.symlink(store / "b", root / "b")
    os.symlink(store / "b", root / "again")
    os.symlink(root, root / "a" / "loop")
    os.symlink(tmp_path, root / "above")
    assert [name for name, *_ in masks_of(root)] in (["a/a.png", "again/b.png"], ["a/a.png", "b/b.png"])


def test_a_hidden_folder_may_be_the_data_set_itself(tmp_path):
    write_scene(tmp_path / ".data", "a", [("house", HOUSE)])
    assert masks_of(tmp_path / ".data") == [("a/a.png", HOUSE, 170)]


def test_files_are_found_in_the_order_of_their_names_in_a_large_folder(tmp_path):
    for number in np.random.default_rng(0).permutation(3000).tolist():
        (tmp_path / f"{number:05}.tif").touch()
    assert find_files(tmp_path, (".tif",)) == [tmp_path / f"{number:05}.tif" for number in range(3000)]
    assert [names for _, names in walk(tmp_path)] == [[f"{number:05}.tif" for number in range(3000)]]


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    write_scene(tmp_path, "a", [("house", HOUSE)])
    name = os.fsencode(tmp_path / "a") + b"/Geb\xe4ude.png"
    shutil.copy(tmp_path / "a" / "a.png", name)
    with pytest.raises(DatasetError, match=r"Geb\\xe4ude\.png isn't UTF-8"):
        open_dataset(tmp_path, ["house"])
    with pytest.raises(SceneError, match=r"Geb\\xe4ude\.png isn't UTF-8"):
        FileScene(os.fsdecode(name))


@pytest.mark.parametrize("files", ["NFC", "NFD"])
@pytest.mark.parametrize("classes", ["NFC", "NFD"])
def test_the_forms_of_texts_make_no_difference(tmp_path, files, classes):
    name = unicodedata.normalize(files, "Gebäude")
    write_scene(tmp_path, "größe", [(name, HOUSE)])
    assert masks_of(tmp_path, f" {unicodedata.normalize(classes, 'Gebäude')} ") == [
        ("größe/größe.png", HOUSE, 170)
    ]


def test_image_and_vector_file_belong_together_in_any_form(tmp_path):
    vector_set(tmp_path)
    for suffix, form in ((".tif", "NFC"), (".geojson", "NFD")):
        (tmp_path / "a" / f"a{suffix}").rename(
            tmp_path / "a" / (unicodedata.normalize(form, "dächer.1") + suffix)
        )
    write_raster(tmp_path / "a" / "b.tif", noise(*SIZE, seed=1))
    with pytest.raises(DatasetError, match=r"1 image\(s\) without a vector file: .*b\.tif"):
        open_dataset(tmp_path, ["house"])
    (tmp_path / "a" / "b.tif").unlink()
    assert [box for _, box, _ in masks_of(tmp_path)] == [HOUSE]


@pytest.mark.parametrize(
    "name",
    [
        "big tiles/dächer 1.png",
        "big tiles\\dächer 1.png",
        quote("big tiles/dächer 1.png"),
        unicodedata.normalize("NFD", "./big tiles/dächer 1.png"),
        "big%20tiles\\d%C3%A4cher%201.png",
    ],
)
def test_images_are_found_whatever_way_coco_files_write_their_names(tmp_path, name):
    coco_set(tmp_path, name, image="big tiles/dächer 1.png")
    assert [box for _, box, _ in masks_of(tmp_path)] == [HOUSE]


def test_a_name_that_is_there_as_written_is_taken_as_it_is(tmp_path):
    write_raster(tmp_path / "a 1.png", noise(*SIZE, seed=7))
    coco_set(tmp_path, "a%201.png", image="a%201.png", number=3)
    (image,) = open_dataset(tmp_path, ["house"]).images
    np.testing.assert_array_equal(image.read(None).image, noise(*SIZE, seed=3))


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("valley.json", "train"),
        ("latest.json", "train"),
        ("contest_aerial.json", "train"),
        ("instances_val2017.json", "validation"),
        ("Validation.json", "validation"),
        ("cityVal.json", "validation"),
        ("valid/_annotations.coco.json", "validation"),
        ("instances-test.json", "left out"),
        ("test/_annotations.coco.json", "left out"),
        ("train_val.json", "train"),
    ],
)
def test_the_part_of_a_coco_file_is_a_whole_word_of_its_name(tmp_path, file, part):
    coco_set(tmp_path, "base.png", "base.json", "base.png", number=1)
    folder = file.rpartition("/")[0]
    coco_set(tmp_path, "other.png", file, f"{folder}/other.png" if folder else "other.png", number=2)
    dataset = open_dataset(tmp_path, ["house"])
    names = {
        "train": [image.name for image in dataset.images],
        "validation": [image.name for image in dataset.validation],
    }
    assert "base.png" in names["train"]
    assert [key for key, found in names.items() if "other.png" in found] == (
        [] if part == "left out" else [part]
    )


@pytest.mark.parametrize("name", ["a_house_2.png", "a-house-2 (1).png", "mask.png", "other/copy.png"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_misnamed_mask_is_no_image_to_train_on(tmp_path, name, soft):
    write_raster(tmp_path / "a" / "a.png", noise(*SIZE, bands=1))
    write_raster(tmp_path / "a" / "a-house-1.png", rectangle(*SIZE, HOUSE))
    mask = rectangle(*SIZE, (20, 20, 39, 50))
    if soft:
        mask[20, 20:50] = np.arange(30) + 100
    write_raster(tmp_path / "a" / name, mask)
    with pytest.raises(DatasetError, match="look like masks"):
        open_dataset(tmp_path, ["house"])


def test_dark_and_empty_images_are_no_masks(tmp_path):
    write_raster(tmp_path / "a" / "a.png", noise(*SIZE, bands=1))
    write_raster(tmp_path / "a" / "a-house-1.png", rectangle(*SIZE, HOUSE))
    write_raster(tmp_path / "b" / "black.png", np.zeros(SIZE, np.uint8))
    write_raster(tmp_path / "c" / "half.png", np.where(INSIDE, noise(*SIZE, bands=1)[..., 0], 0))
    assert len(open_dataset(tmp_path, ["house"]).images) == 3


def test_masks_are_the_same_in_any_order_of_files_and_storage_of_pixels(tmp_path):
    objects = [("house", HOUSE), ("house", (20, 30, 35, 50)), ("house", (0, 40, 9, 60))]
    draws = (grey, sixteen_bits, one_bit, palette_of_black_and_white, white_on_transparent_white)
    found = set()
    for seed in range(5):
        root = tmp_path / str(seed)
        order = np.random.default_rng(seed).permutation(len(objects)).tolist()
        for scene in np.random.default_rng(seed).permutation(["a", "b", "c"]).tolist():
            write_raster(root / scene / f"{scene}.png", noise(*SIZE, seed=ord(scene)))
            for place in order:
                inside = rectangle(*SIZE, objects[place][1]) > 0
                draws[(seed + place) % len(draws)](root / scene / f"{scene}-house-{place}.png", inside)
        found.add(tuple(masks_of(root)))
    assert len(found) == 1 and len(found.pop()) == 9
