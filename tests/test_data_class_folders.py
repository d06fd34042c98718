"""A folder for each class: what is read, what is turned and shrunk, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from ann.cluster.prepare import write_dataset
from ann.data.dataset import IMAGE_LABELS, Dataset
from ann.data.pixels.photos import open_photo
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.image_classes import open_class_files
from ann.data.readers.shards import read_shards
from ann.errors import DatasetError
from class_images import write_class_folders
from labelled_files import noise, write_raster


@pytest.fixture
def folder(tmp_path):
    return write_class_folders(tmp_path / "data", {"field": 3, "water": 2})


def opened(folder, classes=(), longest=64, **options):
    names, files, notes = find_class_files(folder, classes, **options)
    return names, open_class_files(files, len(names), longest), notes


def test_folders_are_the_classes(folder):
    names, images, notes = opened(folder)
    assert names == ("field", "water") and not notes
    assert [image.name for image in images][-1] == "water/water_1.png"
    example = images[-1].read(None)
    assert example.class_id == 2 and example.image.shape == (40, 40, 3) and not example.masks
    assert images[0].instance_counts == (1, 0)


def test_folders_may_lie_deeper_and_some_can_be_left_out(folder):
    write_raster(folder / "water" / "lake" / "deep.png", noise(20, 30))
    names, images, notes = opened(folder.parent, ("water",))
    assert names == ("water",) and len(images) == 3
    assert "left out: field" in notes[0]


def test_images_of_one_folder_can_be_one_scene(folder):
    for name in ("field/may/a.png", "field/may/b.png", "water/may/c.png", "water/june/d.png"):
        write_raster(folder / name, noise(20, 20))
    _, images, _ = opened(folder, by_folder=True)
    sources = {image.name: image.source for image in images}
    assert sources["field/may/a.png"] == sources["field/may/b.png"] == sources["water/may/c.png"]
    assert len(set(sources.values())) == 5 + 2


def test_large_images_are_shrunk_by_means(tmp_path):
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[::2] = 100
    path = write_raster(tmp_path / "large.png", pixels)
    header, shown = open_photo(path, 60)
    assert (header.height, header.width) == (40, 60)
    image, valid = shown()
    assert image.shape == (40, 60, 3) and valid is None
    assert (image == 50).all()


def test_a_georeference_follows_the_size(tmp_path):
    path = write_raster(tmp_path / "map.tif", noise(80, 80))
    header, _ = open_photo(path, 20)
    assert header.pixel_size == pytest.approx(2.0)
    assert header.place.transform[:6] == pytest.approx((2, 0, 500_000, 0, -2, 6_000_000))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_metadata_say(tmp_path, orientation):
    tags = Image.Exif()
    tags[274] = orientation
    path = tmp_path / "photo.jpg"
    Image.fromarray(noise(16, 24)).save(path, quality=100, subsampling=0, exif=tags)
    _, shown = open_photo(path, 64)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert np.abs(shown()[0].astype(int) - expected).max() <= 2


def test_what_can_not_be_used_is_named(folder, tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        find_class_files(tmp_path / "nowhere", ())
    with pytest.raises(DatasetError, match="holds no folders"):
        find_class_files(folder / "water", ())
    with pytest.raises(DatasetError, match="No folder of the class 'town'"):
        find_class_files(folder, ("town", "water"))
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match="class 'empty' holds no image"):
        find_class_files(folder, ())
    write_raster(folder / "empty" / "two.tif", noise(20, 20, bands=2))
    with pytest.raises(DatasetError, match="same number of bands"):
        opened(folder)
    (folder / "empty" / "two.tif").unlink()
    cut = folder / "empty" / "cut.png"
    cut.write_bytes((folder / "water" / "water_0.png").read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"cut\.png is truncated"):
        opened(folder)


def test_shards_keep_images_and_their_classes(folder, tmp_path):
    pytest.importorskip("pyarrow")
    write_raster(folder / "water" / "placed.tif", noise(60, 80))
    names, images, _ = opened(folder, longest=40)
    dataset = Dataset(classes=names, images=images, labels=IMAGE_LABELS)
    write_dataset(dataset, str(tmp_path / "shards"), side=80, validation_share=0, overwrite=False)
    back = read_shards(tmp_path / "shards", ("water", "field"))
    assert back.labels == IMAGE_LABELS
    by_name = {image.name: image for image in back.images}
    for image in images:
        stored, example = by_name[image.name].read(None), image.read(None)
        assert stored.class_id == 3 - example.class_id
        np.testing.assert_array_equal(stored.image, example.image)
        assert by_name[image.name].instance_counts == image.instance_counts[::-1]
    assert by_name["water/placed.tif"].pixel_size == pytest.approx(1.0)
