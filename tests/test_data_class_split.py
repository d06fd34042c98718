"""Images set apart class by class, and those that show the same kept together."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ann.data.class_split import set_apart_by_class
from ann.data.dataset import Dataset
from ann.data.duplicates import join_duplicates
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.image_classes import open_class_files
from ann.data.split import hold_out, split_dataset
from ann.errors import DatasetError
from class_images import draw_image, write_class_folders
from labelled_files import write_raster


def opened(folder, **options):
    names, files, _ = find_class_files(folder, (), **options)
    return Dataset(classes=names, images=open_class_files(files, len(names), 64))


def counts(images):
    return np.sum([image.instance_counts for image in images], axis=0).tolist()


def test_each_class_stands_on_all_sides(tmp_path):
    dataset = opened(write_class_folders(tmp_path, {"field": 20, "forest": 8, "water": 3}))
    dataset, held = hold_out(dataset, 0.1, 0, set_apart_by_class)
    dataset = split_dataset(dataset, 0.25, 0, set_apart_by_class)
    assert counts(held) == [2, 1, 1]
    assert counts(dataset.validation) == [4, 2, 1] and counts(dataset.images) == [14, 5, 1]
    other = split_dataset(
        opened(write_class_folders(tmp_path, {"field": 20, "forest": 8, "water": 3})),
        0.25,
        1,
        set_apart_by_class,
    )
    assert {image.name for image in other.validation} != {image.name for image in dataset.validation}


def test_no_scene_is_divided(tmp_path):
    for flight in range(4):
        for name in ("field", "water"):
            for number in range(3):
                pixels = draw_image(name, seed=100 * flight + number)
                write_raster(tmp_path / name / f"flight_{flight}" / f"{number}.png", pixels)
    dataset = split_dataset(opened(tmp_path, by_folder=True), 0.25, 0, set_apart_by_class)
    assert not {image.source for image in dataset.images} & {image.source for image in dataset.validation}
    assert counts(dataset.validation) == [3, 3]


def test_a_class_with_one_image_is_named(tmp_path):
    dataset = opened(write_class_folders(tmp_path, {"field": 5, "water": 1}))
    with pytest.raises(DatasetError, match=r"class 'water' has a single image .*water_0\.png"):
        split_dataset(dataset, 0.25, 0, set_apart_by_class)


def test_images_that_show_the_same_are_one_scene_and_named(tmp_path):
    for number in range(12):  # coarse patterns, as landscapes have
        pattern = np.random.default_rng(number).integers(0, 230, (6, 6, 3), dtype=np.uint8)
        name = ("field", "forest")[number // 6]
        (tmp_path / name).mkdir(exist_ok=True)
        picture = Image.fromarray(pattern).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(tmp_path / name / f"{name}_{number % 6}.png")
    (tmp_path / "field" / "copy.png").write_bytes((tmp_path / "field" / "field_2.png").read_bytes())
    with Image.open(tmp_path / "forest" / "forest_3.png") as image:
        bright = np.clip(np.array(image).astype(int) + 12, 0, 255).astype(np.uint8)
    Image.fromarray(bright).resize((50, 50)).save(tmp_path / "forest" / "near.jpg", quality=80)
    dataset = join_duplicates(opened(tmp_path))
    by_name = {image.name: image.source for image in dataset.images}
    assert by_name["field/copy.png"] == by_name["field/field_2.png"]
    assert by_name["forest/near.jpg"] == by_name["forest/forest_3.png"]
    assert len(set(by_name.values())) == 12
    notes = " ".join(dataset.notes)
    assert "are the same, and stay together" in notes and "field/copy.png = field/field_2.png" in notes
    assert "nearly the same" in notes and "forest/near.jpg" in notes


def test_the_same_image_in_two_classes_is_refused(tmp_path):
    write_class_folders(tmp_path, {"field": 3, "water": 3})
    (tmp_path / "water" / "again.png").write_bytes((tmp_path / "field" / "field_1.png").read_bytes())
    with pytest.raises(DatasetError, match=r"field_1.png \(field\) is water/again.png \(water\)"):
        join_duplicates(opened(tmp_path))
