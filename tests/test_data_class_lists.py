"""Tables that name images and their classes, and where photos say they were taken."""

from __future__ import annotations

import pytest
from affine import Affine
from PIL import Image

from ann.data.blocks import join_blocks
from ann.data.dataset import Dataset
from ann.data.pixels.gps import gps_position
from ann.data.pixels.rasters import open_image
from ann.data.readers.class_lists import is_class_list, read_class_list
from ann.data.readers.image_classes import open_class_files
from ann.errors import DatasetError
from labelled_files import noise, write_raster


@pytest.fixture
def table(tmp_path):
    for name in ("a", "b", "c d"):
        write_raster(tmp_path / "photos" / f"{name}.png", noise(20, 20))

    def write(text, name="list.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_images_and_classes_are_read_in_the_order_of_the_table(table):
    path = table("image;class;flight\nphotos\\b.png;wet;may\nphotos/c%20d.png;dry;may\nphotos/a.png;dry;\n")
    assert is_class_list(path) and not is_class_list(path.parent)
    names, files = read_class_list(path, ())
    assert names == ("dry", "wet")
    assert [(file.path.name, file.class_id) for file in files] == [("b.png", 2), ("c d.png", 1), ("a.png", 1)]
    assert files[0].source == files[1].source is not None and files[2].source is None
    assert len(open_class_files(files, 2, 64)) == 3
    names, _ = read_class_list(path, ("wet", "dry"))
    assert names == ("wet", "dry")


def test_the_column_of_the_class_can_be_named(table):
    path = table("file,seen,kind\nphotos/a.png,1,wet\nphotos/b.png,2,dry\n")
    assert read_class_list(path, (), "kind")[0] == ("dry", "wet")
    assert read_class_list(path, ())[0] == ("1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,class\n", "no rows"),
        ("image,class\nphotos/a.png,\n", "Line 2 .* lacks the image or its class"),
        ("image,class\nphotos/x.png,wet\n", r"names the image photos/x\.png, which is not there"),
        ("image,class\nphotos/a.png,wet\nphotos/a.png,dry\n", "more than once"),
        ("image\nphotos/a.png\n", "Expected the columns image and class"),
    ],
)
def test_faults_are_named(table, text, message):
    with pytest.raises(DatasetError, match=message):
        read_class_list(table(text), ())


def test_unknown_classes_are_refused(table):
    with pytest.raises(DatasetError, match="'dry'"):
        read_class_list(table("image,class\nphotos/a.png,wet\nphotos/b.png,dry\n"), ("wet", "town"))


def test_images_of_a_square_of_ground_are_one_scene(table, tmp_path):
    for number, east in enumerate((0, 30, 200)):
        place = Affine(0.5, 0, 500_000 + east, 0, -0.5, 6_000_000)
        write_raster(tmp_path / f"{number}.tif", noise(20, 20, seed=number), transform=place)
    names, files = read_class_list(table("image,class\n0.tif,wet\n1.tif,wet\n2.tif,dry\n"), ())
    dataset = Dataset(classes=names, images=open_class_files(files, 2, 64))
    sources = [image.source for image in join_blocks(dataset, 100).images]
    assert sources[0] == sources[1] != sources[2]
    files = read_class_list(table("image,class\n0.tif,wet\nphotos/a.png,dry\n"), ())[1]
    with pytest.raises(DatasetError, match=r"photos/a\.png"):
        join_blocks(Dataset(classes=names, images=open_class_files(files, 2, 64)), 100)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("N", (50.0, 6.0, 36.0), "W", (14.0, 30.0, 0.0)), (-14.5, 50.11)),
        (("S", (50.5, 0.0, 0.0), "E", (14.0, 0.0, 0.0)), (14.0, -50.5)),
        (("N", (0.0, 0.0, 0.0), "E", (0.0, 0.0, 0.0)), None),
        (None, None),
    ],
)
def test_photos_say_where_they_were_taken(tmp_path, values, expected):
    tags = Image.Exif()
    if values:
        tags[0x8825] = dict(enumerate(values, 1))
    Image.fromarray(noise(16, 16)).save(tmp_path / "photo.jpg", exif=tags)
    with open_image(tmp_path / "photo.jpg") as source:
        found = gps_position(source)
    assert found == (expected if expected is None else pytest.approx(expected))
