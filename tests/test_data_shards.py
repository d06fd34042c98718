"""Training tiles in Parquet shards: what is written comes back, and damage is named."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from ann.cluster.prepare import write_dataset
from ann.data.dataset import OBJECT_LABELS, Dataset
from ann.data.outlines.masks import CroppedMask, crop_mask, paste
from ann.data.outlines.rle import mask_from_runs, runs_from_mask
from ann.data.outlines.shapes import PackedMask
from ann.data.pixels.encoding import encode_image
from ann.data.pixels.rasters import ImageHeader, read_pixels
from ann.data.pixels.windows import Window
from ann.data.readers.directories import read_directories
from ann.data.readers.formats import open_dataset
from ann.data.readers.labelled_image import labelled_image
from ann.data.readers.shard_writing import (
    Labelled,
    begin_writing,
    even_windows,
    finish_writing,
    plan_shards,
    split_single_scene,
    write_shard,
)
from ann.data.readers.shards import is_shards
from ann.data.samples.batches import TrainingBatches
from ann.data.samples.samples import SampleSettings
from ann.data.samples.scaling import band_statistics
from ann.data.split import split_dataset
from ann.data.storage import Folder
from ann.errors import DatasetError
from labelled_files import map_point, noise, write_raster, write_scene
from maskrcnn.config import MaskRCNNConfig

pytest.importorskip("pyarrow")
CLASSES = ("house", "tree")


def write(dataset, location, *, side=1000, shard_tiles=2, overwrite=False):
    """All of a dataset as shards of a few tiles each."""
    folder = Folder.of(location)
    begin_writing(folder, overwrite=overwrite)
    parts = split_single_scene(dataset, 0.25, seed=0)
    images = [image for part in parts.values() for image in part]
    tiles = [tile for shard in plan_shards(parts, side) for tile in shard]
    shards = [tiles[start : start + shard_tiles] for start in range(0, len(tiles), shard_tiles)]
    summaries = [
        write_shard(
            folder,
            number,
            [(images[tile.image], tile.window, tile.part) for tile in shard],
            Labelled.of(dataset),
        )
        for number, shard in enumerate(shards)
    ]
    return finish_writing(folder, dataset, summaries)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four scenes of 40 x 60 pixels, one without objects."""
    root = tmp_path_factory.mktemp("scenes")
    for number in range(3):
        objects = [("house", (2, 3, 12, 20)), ("tree", (15, 30 + number, 39, 58)), ("house", (20, 0, 40, 7))]
        write_scene(root, f"scene_{number}", objects, seed=number)
    write_scene(root, "scene_3", [], seed=3)
    return read_directories(root, CLASSES)


@pytest.fixture(scope="module")
def written(dataset, tmp_path_factory):
    """The four scenes in two shards."""
    location = tmp_path_factory.mktemp("shards") / "set"
    write(dataset, location)
    return location


@pytest.fixture
def copied(written, tmp_path):
    """The same, to be damaged; and its shards in order."""
    folder = tmp_path / "set"
    folder.mkdir()
    for path in written.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder, sorted(folder.glob("*.parquet"))


def assert_same(one, two):
    np.testing.assert_array_equal(one.image, two.image)
    assert one.image.dtype == two.image.dtype
    assert one.class_ids.tolist() == two.class_ids.tolist()
    for mask, other in zip(one.masks, two.masks, strict=True):
        assert mask.box == other.box
        np.testing.assert_array_equal(mask.pixels, other.pixels)
    np.testing.assert_allclose(one.visible, two.visible, rtol=1e-6)


def test_whole_images_come_back_as_they_were_in_any_window(dataset, written):
    read = open_dataset(written, CLASSES)
    assert [image.name for image in read.images] == [image.name for image in dataset.images]
    assert read.instance_counts == dataset.instance_counts == (6, 3)
    for image, original in zip(read.images, dataset.images, strict=True):
        assert (image.source, image.dtype, image.bands) == (original.source, original.dtype, 3)
        assert image.class_ids.tolist() == original.class_ids.tolist()
        np.testing.assert_array_equal(image.boxes, original.boxes)
        for window in (None, Window(row=8, column=10, height=20, width=37)):
            assert_same(image.read(window), original.read(window))


def test_samples_of_shards_are_those_of_the_images(dataset, written):
    config = MaskRCNNConfig(classes=CLASSES, backbone="resnet18", image_shape=(64, 64))
    settings = SampleSettings(min_dim=64, balance=True)
    expected, found = (
        TrainingBatches(images, config, settings, batch_size=3, seed=5).batch(1)
        for images in (dataset.images, open_dataset(written, CLASSES).images)
    )
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_readers_survive_pickling_without_the_pixels(written):
    content = pickle.dumps(open_dataset(written, CLASSES).images[1])
    assert len(content) < 3000
    assert pickle.loads(content).read(None).image.shape == (40, 60, 3)


def test_statistics_are_those_of_all_pixels(dataset, written):
    mean, deviation = open_dataset(written, CLASSES).band_statistics
    expected_mean, expected_deviation = band_statistics(dataset.images)
    np.testing.assert_allclose(mean, expected_mean)
    np.testing.assert_allclose(deviation, expected_deviation)


def test_classes_may_come_in_another_order_but_must_be_the_same(written):
    read = open_dataset(written, ("tree", "house"))
    assert read.instance_counts == (3, 6)
    assert read.images[0].read(None).class_ids.tolist() == [2, 2, 1]
    with pytest.raises(DatasetError, match="'tree'"):
        open_dataset(written, ("house",))
    with pytest.raises(DatasetError, match="barn"):
        open_dataset(written, (*CLASSES, "barn"))


def test_large_images_are_cut_evenly_and_cut_objects_know_their_whole_area(dataset, tmp_path):
    write(dataset, tmp_path / "set", side=32)
    read = open_dataset(tmp_path / "set", CLASSES)
    assert len(read.images) == 4 * 4  # 40 x 60 into 20 x 30
    original = dataset.images[0]
    seen = np.zeros((40, 60, 3), np.uint8)
    for image in [image for image in read.images if image.source == original.source]:
        row, column = (int(part.split(":")[0]) for part in image.name.split("[")[1].split(","))
        window = Window(row=row, column=column, height=20, width=30)
        assert_same(image.read(None), original.read(window))
        part = Window(row=3, column=4, height=11, width=16)
        assert_same(
            image.read(part),
            original.read(replace(window, row=row + 3, column=column + 4, height=11, width=16)),
        )
        seen[row : row + 20, column : column + 30] = image.read(None).image
    np.testing.assert_array_equal(seen, original.read(None).image)


def test_windows_cover_an_image_evenly_without_overlap():
    windows = even_windows(100, 65, 33)
    covered = np.zeros((100, 65), int)
    for window in windows:
        covered[window.row : window.box[2], window.column : window.box[3]] += 1
        assert max(window.height, window.width) <= 33 and min(window.height, window.width) >= 25
    assert (covered == 1).all()


def test_shards_are_planned_by_size(dataset):
    image = replace(dataset.images[0], height=8192, width=8192)
    shards = plan_shards({"training": [image, image], "validation": dataset.images[1:2]}, 2048)
    assert [len(shard) for shard in shards] == [10, 10, 10, 3]  # 128 MiB hold ten tiles of 12.6 MB
    assert [tile.part for tile in shards[-1]] == ["training", "training", "validation"]
    assert shards[-1][-1].image == 2


def array_image(pixels, valid=None, shapes=(), class_ids=()):
    header = ImageHeader(
        path="array", height=pixels.shape[0], width=pixels.shape[1], bands=pixels.shape[2],
        dtype=str(pixels.dtype), pixel_size=None,
    )  # fmt: skip

    def read(window):
        part = np.s_[window.row : window.box[2], window.column : window.box[3]]
        return pixels[part], None if valid is None else valid[part]

    return labelled_image(header, shapes, class_ids, 2, name="array", pixels=read)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 4, 7])
def test_any_type_and_number_of_bands_is_kept_to_the_bit(tmp_path, dtype, bands):
    generator = np.random.default_rng(bands)
    pixels = np.exp(generator.normal(0, 3, (300, 270, bands))).astype(dtype)
    valid = generator.random((300, 270)) > 0.3
    mask = PackedMask.pack(CroppedMask(row=2, column=1, pixels=np.ones((200, 5), bool)))
    image = array_image(pixels, valid, [mask, mask], [1, -2])
    labels = tuple(f"band {number}" for number in range(bands))
    image = replace(image, band_labels=labels)
    write(Dataset(classes=CLASSES, images=(image, image)), tmp_path / "set")
    (read, _) = open_dataset(tmp_path / "set", CLASSES[:1]).images
    window = Window(row=250, column=5, height=50, width=260)
    for part in (None, window):
        found, expected = read.read(part), image.read(part)
        assert_same(found, replace(expected, class_ids=np.sign(expected.class_ids)))
        np.testing.assert_array_equal(found.valid, expected.valid)
    assert read.class_ids.tolist() == [1, -1]
    assert read.instance_counts == (1,) and read.band_labels == labels


def test_a_tile_is_a_tiff_that_others_read(tmp_path):
    pixels = noise(70, 50, 4)
    path = tmp_path / "tile.tif"
    path.write_bytes(encode_image(pixels))
    np.testing.assert_array_equal(read_pixels(path)[0], pixels)


def test_georeference_and_provenance_stand_in_the_table(tmp_path):
    import pyarrow.parquet as parquet

    write_raster(tmp_path / "scenes" / "a" / "a.tif", noise(40, 260))
    write_raster(tmp_path / "scenes" / "a" / "a-house-1.png", np.ones((40, 260), np.uint8))
    dataset = read_directories(tmp_path / "scenes", ("house",))
    manifest = write(dataset, tmp_path / "set", side=32, shard_tiles=100)
    read = open_dataset(tmp_path / "set", ("house",))
    assert read.validation and {image.source for image in read.validation} == {
        str(tmp_path / "scenes" / "a" / "a.tif")
    }
    rows = parquet.read_table(tmp_path / "set" / manifest["shards"][0]["name"]).to_pylist()
    assert sum(row["height"] * row["width"] for row in rows) == 40 * 260
    for row in rows:
        assert row["scene"] == str(tmp_path / "scenes" / "a" / "a.tif")
        corner = map_point(row["column"], row["row"])
        assert row["transform"] == [0.5, 0, corner[0], 0, -0.5, corner[1]]
        assert "32632" in row["crs"]


def test_a_single_scene_is_split_before_it_is_cut(dataset):
    large = array_image(noise(40, 300), None, [PackedMask.pack(crop_mask(np.ones((40, 300))))], [1])
    alone = replace(dataset, images=(large,))
    parts = split_single_scene(alone, 0.25, seed=0)
    assert [image.name for image in parts["validation"]] == [
        image.name for image in split_dataset(alone, 0.25, 0).validation
    ]
    assert not split_single_scene(alone, 0, seed=0)["validation"]
    assert not split_single_scene(dataset, 0.25, seed=0)["validation"]


@pytest.mark.parametrize("chance", range(20))
def test_runs_and_masks_are_each_others_reverse(chance):
    generator = np.random.default_rng(chance)
    height, width = (int(side) for side in generator.integers(1, 12, 2))
    full = generator.random((height, width)) < generator.choice([0.2, 0.9, 1.0])
    if not full.any():
        full[0, 0] = True
    mask = mask_from_runs(
        runs_from_mask(CroppedMask(row=0, column=0, pixels=full), height, width), height, width
    )
    np.testing.assert_array_equal(paste(mask, height, width), full)
    runs = runs_from_mask(mask, height, width)
    assert runs.sum() == height * width and (runs[1:] > 0).all()


def test_a_missing_shard_is_named_and_left_out_only_if_asked(copied):
    folder, shards = copied
    shards[0].unlink()
    with pytest.raises(DatasetError, match=f"{shards[0].name} is missing"):
        open_dataset(folder, CLASSES)
    read = open_dataset(folder, CLASSES, skip_damaged=True)
    assert [image.name.split("/")[0] for image in read.images] == ["scene_2", "scene_3"]
    assert any(shards[0].name in note and "1 of 2 shards" in note for note in read.notes)
    shards[1].unlink()
    with pytest.raises(DatasetError, match="No shard"):
        open_dataset(folder, CLASSES, skip_damaged=True)


def test_a_shard_that_vanishes_later_is_named(copied):
    folder, shards = copied
    image = open_dataset(folder, CLASSES).images[0]
    shards[0].unlink()
    with pytest.raises(DatasetError, match=f"{shards[0].name} is missing"):
        image.read(None)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_truncated_shard_is_named(copied, keep):
    folder, shards = copied
    shards[1].write_bytes(shards[1].read_bytes()[:keep])
    with pytest.raises(DatasetError, match=f"{shards[1].name} has .* bytes instead of"):
        open_dataset(folder, CLASSES)
    assert len(open_dataset(folder, CLASSES, skip_damaged=True).images) == 2


@pytest.mark.parametrize("place", [0.001, 0.2, 0.4, 0.6, 0.9, 0.95, 0.97, 0.99, 0.9999])
def test_changed_bytes_are_noticed_and_named(dataset, copied, place):
    folder, shards = copied
    content = bytearray(shards[0].read_bytes())
    start = int(len(content) * place)
    for position in range(start, min(start + 40, len(content))):
        content[position] ^= 0xA5
    shards[0].write_bytes(content)
    try:
        images = open_dataset(folder, CLASSES).images
        found = [image.read(None) for image in images]
    except DatasetError as error:
        assert shards[0].name in str(error) and "damaged" in str(error)
        assert len(open_dataset(folder, CLASSES, skip_damaged=True).images) == 2
    else:  # a place that no tile depends on, e.g. a column that is not read
        for example, original in zip(found, dataset.images, strict=True):
            assert_same(example, original.read(None))


def test_an_incomplete_set_is_recognised(copied):
    folder, _ = copied
    content = (folder / "shards.json").read_text()
    (folder / "shards.json").unlink()
    assert is_shards(folder)
    with pytest.raises(DatasetError, match="incomplete"):
        open_dataset(folder, CLASSES)
    for damaged in ("", "{", "[]", '{"format": "else"}', content[: len(content) // 2]):
        (folder / "shards.json").write_text(damaged)
        with pytest.raises(DatasetError, match=r"shards\.json is damaged"):
            open_dataset(folder, CLASSES)
    (folder / "shards.json").write_text(json.dumps(json.loads(content) | {"version": 3}))
    with pytest.raises(DatasetError, match="newer version"):
        open_dataset(folder, CLASSES)


def test_a_failed_shard_leaves_nothing_and_a_new_run_cleans_up(dataset, copied):
    folder, shards = copied
    broken = replace(dataset.images[0], read=lambda window: 1 / 0)
    whole = Window(row=0, column=0, height=40, width=60)
    tiles = [(dataset.images[1], whole, "training"), (broken, whole, "training")]
    with pytest.raises(ZeroDivisionError):
        write_shard(Folder.of(folder), 7, tiles, Labelled(kind=OBJECT_LABELS, class_count=2))
    assert sorted(folder.glob("*.parquet")) == shards
    with pytest.raises(DatasetError, match="--overwrite"):
        write(dataset, folder)
    manifest = write(dataset, folder, overwrite=True)
    names = {shard["name"] for shard in manifest["shards"]} | {"shards.json"}
    assert {path.name for path in folder.iterdir()} == names


def test_only_shards_that_the_index_names_are_replaced(dataset, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    foreign = folder / "shard-00000-deadbeef.parquet"
    foreign.write_text("precious")
    options = {"side": 1000, "validation_share": 0}

    def names():
        return {path.name for path in folder.iterdir()}

    def listed(manifest):
        return {shard["name"] for shard in manifest["shards"]} | {"shards.json", foreign.name}

    first = write_dataset(dataset, str(folder), overwrite=False, **options)
    assert names() == listed(first)
    second = write_dataset(dataset, str(folder), overwrite=True, **options)
    assert names() == listed(second) and not listed(first) & listed(second) - {"shards.json", foreign.name}

    # a run that fails takes away what it made, and leaves the set that it was to replace
    broken = replace(dataset.images[-1], read=lambda window: 1 / 0)
    failing = replace(dataset, images=(*dataset.images[:-1], broken))
    with pytest.raises(ZeroDivisionError):
        write_dataset(failing, str(folder), overwrite=True, **options)
    assert names() == listed(second)
    assert len(open_dataset(folder, CLASSES).images) == 4

    # an index of some other program names nothing
    (folder / "shards.json").write_text(json.dumps({"shards": [{"name": foreign.name}]}))
    third = write_dataset(dataset, str(folder), overwrite=True, **options)
    assert names() == listed(second) | listed(third)
    assert foreign.read_text() == "precious"


def test_shards_that_cannot_be_found_in_the_end_are_an_error(dataset, tmp_path):
    folder = Folder.of(tmp_path / "set")
    begin_writing(folder, overwrite=False)
    whole = Window(row=0, column=0, height=40, width=60)
    summary = write_shard(folder, 0, [(dataset.images[0], whole, "training")], Labelled.of(dataset))
    (tmp_path / "set" / summary.name).rename(tmp_path / summary.name)
    with pytest.raises(DatasetError, match=f"{summary.name}.*all machines see"):
        finish_writing(folder, dataset, [summary])
    assert list((tmp_path / "set").iterdir()) == []


def test_a_uri_is_a_place_too(dataset, tmp_path):
    uri = f"file://{tmp_path}/by_uri"
    write(dataset, uri)
    assert_same(open_dataset(uri, CLASSES).images[0].read(None), dataset.images[0].read(None))
    with pytest.raises(DatasetError, match="No shards found in file://"):
        open_dataset(f"file://{tmp_path}/nothing", CLASSES)
    with pytest.raises(DatasetError, match=r"nonsense://.* can't be opened"):
        open_dataset("nonsense://bucket/set", CLASSES)


def test_a_place_that_cannot_be_written_is_an_error_before_the_work(dataset):
    with pytest.raises(DatasetError, match="can't be written"):
        write(dataset, "/proc/shards")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_storage_is_said_and_no_half_shard_stays(small_disk):
    image = array_image(noise(600, 700))
    small = Dataset(classes=CLASSES, images=(array_image(noise(20, 20)), image))
    with pytest.raises(DatasetError, match=r"shard-00001-.* can't be written .*storage is full"):
        write(small, small_disk / "set", shard_tiles=1)
    assert [path.name[:11] for path in (small_disk / "set").iterdir()] == ["shard-00000"]
    with pytest.raises(DatasetError, match="incomplete"):
        open_dataset(small_disk / "set", CLASSES)
