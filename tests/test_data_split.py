"""What is set apart for validation: whole scenes, or a strip of the only one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ann.data.dataset import part_of_image
from ann.data.pixels.windows import Window
from ann.data.readers.formats import open_dataset
from ann.data.split import hold_out, split_dataset
from ann.errors import DatasetError
from labelled_files import noise, rectangle, write_raster, write_scene


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    for number in range(10):
        rare = [("rare", (20, 20, 30, 30))] if number in (2, 7) else []
        write_scene(root, f"s{number}", [("common", (1, 1, 9, 9)), *rare], seed=number)
    return open_dataset(root, ["common", "rare"])


def names(images):
    return [image.name for image in images]


def test_images_are_split_without_loss_and_fixed_by_the_seed(dataset):
    split = split_dataset(dataset, 0.2, seed=1)
    assert len(split.validation) == 2
    assert sorted(names(split.images + split.validation)) == names(dataset.images)
    assert names(split_dataset(dataset, 0.2, seed=1).validation) == names(split.validation)
    assert len({tuple(names(split_dataset(dataset, 0.2, seed=s).validation)) for s in range(8)}) > 2
    assert split.validation[0].name in split.notes[-1]


def test_a_rare_class_stands_on_both_sides(dataset):
    for seed in range(5):
        split = split_dataset(dataset, 0.2, seed=seed)
        for side in (split.images, split.validation):
            assert sum(image.instance_counts[1] for image in side) == 1


def test_images_of_one_scene_stay_together(dataset):
    pairs = tuple(
        replace(image, source=f"scene {number // 2}") for number, image in enumerate(dataset.images)
    )
    split = split_dataset(replace(dataset, images=pairs), 0.2, seed=3)
    kept = {image.source for image in split.images}
    assert kept.isdisjoint(image.source for image in split.validation)
    assert len(split.validation) == 2


def test_a_given_validation_part_is_kept(dataset):
    given = replace(dataset, images=dataset.images[:7], validation=dataset.images[7:])
    assert split_dataset(given) is given


def test_held_out_images_are_a_tenth_and_at_least_one(dataset):
    kept, held = hold_out(dataset, 0.1, seed=2)
    assert (len(kept.images), len(held)) == (9, 1)
    two = replace(dataset, images=dataset.images[:2])
    assert len(hold_out(two)[1]) == 1
    with pytest.raises(DatasetError, match="at least two"):
        hold_out(replace(dataset, images=dataset.images[:1]))


@pytest.fixture
def scene(tmp_path):
    write_raster(tmp_path / "s" / "s.png", noise(100, 700))
    for number in range(20):
        box = (10, 35 * number + 2, 40, 35 * number + 30)
        write_raster(tmp_path / "s" / f"s-house-{number}.png", rectangle(100, 700, box))
    return open_dataset(tmp_path, ["house"])


def test_the_only_scene_is_cut_into_a_strip_and_the_rest(scene):
    split = split_dataset(scene, 0.2, seed=1)
    covered = np.zeros(700, int)
    for image in (*split.images, *split.validation):
        pixels = image.read(None).image
        assert pixels.shape == (100, image.width, 3)
        start = int(image.name.split(",")[1].split(":")[0])
        np.testing.assert_array_equal(pixels, noise(100, 700)[:, start : start + image.width])
        covered[start : start + image.width] += 1
    assert (covered == 1).all()
    assert sum(image.width for image in split.validation) == 140
    assert sum(image.instance_counts[0] for image in split.validation) in (4, 5)


def test_a_part_of_an_image_is_an_image(scene):
    whole = scene.images[0]
    part = part_of_image(whole, Window(row=5, column=50, height=60, width=100))
    example = part.read(Window(row=1, column=2, height=50, width=90))
    expected = whole.read(Window(row=6, column=52, height=50, width=90))
    np.testing.assert_array_equal(example.image, expected.image)
    assert [mask.box for mask in example.masks] == [mask.box for mask in expected.masks]
    np.testing.assert_allclose(example.visible, expected.visible)
    full = part.read(None)
    assert part.boxes.tolist() == [list(mask.box) for mask in full.masks]
    assert part.instance_counts == (len(full.masks),)


def test_a_scene_too_small_to_cut_is_said(tmp_path):
    write_scene(tmp_path, "s", [("house", (1, 1, 9, 9))])
    with pytest.raises(DatasetError, match="too small"):
        split_dataset(open_dataset(tmp_path, ["house"]))


def test_images_of_one_extent_are_cut_alike(scene):
    (first,) = scene.images
    dates = tuple(
        replace(first, name=name, source="ground", extent=(0.0, 0.0, 70.0, 10.0)) for name in ("may", "june")
    )
    split = split_dataset(replace(scene, images=dates), 0.2, seed=1)
    assert [image.name.partition("[")[0] for image in split.validation] == ["may", "june"]
    assert len({image.name.partition("[")[2] for image in split.validation}) == 1
    kept = {image.name.partition("[")[2] for image in split.images}
    assert kept.isdisjoint(image.name.partition("[")[2] for image in split.validation)


def test_images_that_overlap_in_one_scene_are_cut_along_one_line(scene):
    (first,) = scene.images
    west, east = (
        replace(first, name=name, source="ground", extent=(x, 0.0, x + 70.0, 10.0))
        for name, x in (("west", 0.0), ("east", 35.05))
    )
    split = split_dataset(replace(scene, images=(west, east)), 0.2, seed=1)

    def ground(images):
        covered = set()
        for image in images:
            x1, x2 = 0, 700
            if "[" in image.name:
                x1, x2 = map(int, image.name.partition(",")[2].rstrip("]").split(":"))
            start = 0 if image.name.startswith("west") else 350.5
            covered |= set(range(int(start + x1), int(np.ceil(start + x2))))  # in tenths of a map unit
        return covered

    kept, apart = ground(split.images), ground(split.validation)
    assert len(kept & apart) <= 2  # the line may lie inside of a cell of the other image's grid
    assert 150 < len(apart) < 250 and len(kept | apart) > 900


def test_only_places_that_are_not_known_are_no_reason_to_guess(scene):
    (first,) = scene.images
    parts = tuple(replace(first, name=name, source="ground") for name in ("a", "b"))
    with pytest.raises(DatasetError, match="validation_steps=0"):
        split_dataset(replace(scene, images=parts))


def test_a_scene_of_most_images_is_cut_and_the_others_are_trained_on(scene):
    (first,) = scene.images
    tiles = tuple(
        replace(first, name=f"t{n}", source="mosaic", extent=(60.0 * n, 0.0, 60.0 * n + 70.0, 10.0))
        for n in range(8)
    )
    split = split_dataset(replace(scene, images=(*tiles, first)), 0.2, seed=1)
    assert {image.source for image in split.validation} == {"mosaic"}
    assert first in split.images
    assert 1 <= len(split.validation) <= 3


def test_validation_that_shows_ground_of_the_training_is_named(dataset):
    given = replace(
        dataset,
        images=dataset.images[:7],
        validation=(replace(dataset.images[7], source=dataset.images[0].source), dataset.images[8]),
    )
    split = split_dataset(given)
    assert split.validation == given.validation
    assert "1 image(s) for validation" in split.notes[-1] and given.validation[0].name in split.notes[-1]


def test_ground_of_the_validation_is_not_held_out(dataset):
    shared = replace(dataset.images[9], source=dataset.images[0].source)
    for seed in range(8):
        given = replace(dataset, images=dataset.images[:3], validation=(shared,))
        _, held = hold_out(given, 0.5, seed=seed)
        assert held and dataset.images[0] not in held


def test_splitting_takes_time_in_proportion_to_the_scenes(dataset):
    first = dataset.images[0]
    images = tuple(replace(first, source=f"scene {number}") for number in range(20_000))
    split = split_dataset(replace(dataset, images=images), 0.25, seed=1)  # hours, were it quadratic
    assert len(split.validation) == 5_000
