"""Samples, their order, and batches: fixed shapes, objects at their place, everything decided by the seed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from ann.data.readers.formats import open_dataset
from ann.data.samples.batches import TrainingBatches, ValidationBatches
from ann.data.samples.order import VisitOrder
from ann.data.samples.prefetch import Prefetcher
from ann.data.samples.resize import expand_mini_mask
from ann.data.samples.samples import SampleSettings
from ann.data.targets.instances import (
    LEFT_OUT_PLACES,
    join_boxes,
    most_instances,
    suggest_max_instances,
)
from ann.errors import DatasetError
from labelled_files import noise, rectangle, write_raster, write_scene
from maskrcnn.config import MaskRCNNConfig

PLAIN = SampleSettings(augment=False)
CONFIG = MaskRCNNConfig(
    classes=("house", "barn"),
    image_shape=(64, 64),
    band_mean=(100.0, 110.0, 120.0),
    band_scale=(50.0, 60.0, 70.0),
    max_instances=5,
)
LEVELS = {"house": 200, "barn": 50}  # of the pixels of an object; the ground is 120


def draw(root, name, objects, size):
    """A scene whose pixels say what is where, so that a batch can be checked against its own image."""
    directory = write_scene(root, name, objects, size)
    image = np.full((*size, 3), 120, np.uint8)
    for class_name, (y1, x1, y2, x2) in objects:
        image[y1:y2, x1:x2] = LEVELS[class_name]
    write_raster(directory / f"{name}.png", image)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    draw(root, "exact", [("house", (10, 12, 30, 40)), ("barn", (40, 8, 60, 24))], (64, 64))
    draw(root, "small", [("house", (5, 4, 20, 30))], (40, 52))
    spread = [("barn", (y, x, y + 12, x + 16)) for y in range(4, 180, 40) for x in range(4, 220, 50)]
    draw(root, "large", [("house", (60, 70, 75, 95)), *spread], (200, 256))
    draw(root, "bare", [], (64, 64))
    return {image.name.split("/")[0]: image for image in open_dataset(root, ["house", "barn"]).images}


def raw(batch):
    """The batch's images in the numbers of the files."""
    return batch["images"] * np.array(CONFIG.band_scale) + np.array(CONFIG.band_mean)


def masks_of(batch):
    """The batch's masks with a byte for each pixel, (B, N, H, W) of 0 and 1."""
    return np.unpackbits(batch["masks"], axis=-1)


def check_objects(batch, tolerance=1.0):
    """Every labelled object lies on pixels of its class, and every such pixel is labelled."""
    pixels = raw(batch)[..., 0]
    for image, ids, masks in zip(pixels, batch["class_ids"], masks_of(batch), strict=True):
        for class_id, level in ((1, LEVELS["house"]), (2, LEVELS["barn"])):
            labelled = masks[np.abs(ids[: len(masks)]) == class_id].any(axis=0)
            np.testing.assert_array_equal(labelled, np.abs(image - level) < tolerance)


def test_a_batch_has_fixed_shapes_and_types(images):
    batches = TrainingBatches(list(images.values()), CONFIG, SampleSettings(), batch_size=3)
    expected = {
        "images": ((3, 64, 64, 3), np.float32),
        "class_ids": ((3, 5 + LEFT_OUT_PLACES), np.int32),
        "boxes": ((3, 5 + LEFT_OUT_PLACES, 4), np.float32),
        "masks": ((3, 5, 64, 8), np.uint8),
    }
    for step in range(4):
        batch = batches.batch(step)
        assert {key: (value.shape, value.dtype) for key, value in batch.items()} == expected


def test_an_image_of_the_networks_size_comes_as_it_is(images):
    batch = TrainingBatches([images["exact"]], CONFIG, PLAIN).batch(0)
    np.testing.assert_allclose(raw(batch)[0], images["exact"].read(None).image, atol=1e-3)
    assert batch["class_ids"][0, :2].tolist() == [2, 1] and not batch["class_ids"][0, 2:].any()
    assert batch["boxes"][0, :2].tolist() == [[40, 8, 60, 24], [10, 12, 30, 40]]
    assert not batch["boxes"][0, 2:].any() and not batch["masks"][0, 2:].any()
    check_objects(batch)


def test_a_small_image_is_padded_with_raw_zeros_in_the_middle(images):
    batch = TrainingBatches([images["small"]], CONFIG, PLAIN).batch(0)
    assert batch["boxes"][0, 0].tolist() == [5 + 12, 4 + 6, 20 + 12, 30 + 6]
    padding = np.ones((64, 64), bool)
    padding[12:52, 6:58] = False
    np.testing.assert_allclose(raw(batch)[0][padding], 0, atol=1e-4)


def test_a_small_image_is_enlarged_to_min_dim(images):
    batch = TrainingBatches([images["small"]], CONFIG, replace(PLAIN, min_dim=64)).batch(0)
    assert (raw(batch)[0, 1:-1, 1:-1] > 100).all()  # 64 x 83 pixels fill the sample
    y1, _, y2, _ = batch["boxes"][0, 0]
    assert y1 == pytest.approx(5 * 1.6, abs=1) and y2 == pytest.approx(20 * 1.6, abs=1)


def test_max_dim_shrinks_as_the_legacy_models_did(images):
    batch = TrainingBatches([images["large"]], CONFIG, replace(PLAIN, max_dim=64)).batch(0)
    assert (raw(batch)[0, :7] < 1).all() and (raw(batch)[0, -7:] < 1).all()  # 200 x 256 -> 50 x 64
    assert (raw(batch)[0, 8:-8, 1:-1] > 40).all()


def test_windows_of_a_large_image_keep_its_resolution_and_labels(images):
    batches = TrainingBatches([images["large"]], CONFIG, PLAIN)
    widths = []
    for step in range(20):
        batch = batches.batch(step)
        check_objects(batch)
        whole = batch["boxes"][0][batch["class_ids"][0] == 2]
        widths += [(y2 - y1, x2 - x1) for y1, x1, y2, x2 in whole]
    assert (12.0, 16.0) in widths
    assert all(height <= 12 and width <= 16 for height, width in widths)


def test_most_windows_show_an_object_and_a_share_is_placed_anywhere(images, tmp_path):
    draw(tmp_path, "lonely", [("house", (300, 300, 310, 310))], (320, 320))
    image = open_dataset(tmp_path, ["house"]).images[0]
    config = replace(CONFIG, classes=("house",))
    for share, low, high in ((0.0, 60, 60), (0.5, 20, 42), (1.0, 0, 15)):
        batches = TrainingBatches([image], config, replace(PLAIN, random_share=share))
        shown = sum(int(batches.batch(step)["class_ids"].any()) for step in range(60))
        assert low <= shown <= high


def test_objects_cut_by_the_window_stay_or_become_regions(tmp_path):
    # Windows start anywhere, so each object is cut in many ways; the rule is checked against the area seen.
    draw(tmp_path, "s", [("house", (70, 70, 90, 90))], (160, 160))
    image = open_dataset(tmp_path, ["house"]).images[0]
    config = replace(CONFIG, classes=("house",))
    batches = TrainingBatches([image], config, replace(PLAIN, random_share=1.0))
    seen = set()
    for step in range(120):
        batch = batches.batch(step)
        area, class_id = int(masks_of(batch).sum()), int(batch["class_ids"][0, 0])
        if area:
            assert class_id == (1 if area >= 0.25 * 400 else -1)
            seen.add((class_id, area == 400))
        else:
            assert class_id == 0
    assert {(1, True), (1, False), (-1, False)} <= seen


def test_of_more_objects_than_places_the_smallest_are_regions_to_ignore(images):
    config = replace(CONFIG, max_instances=3, image_shape=(192, 256))
    batch = TrainingBatches([images["large"]], config, PLAIN).batch(0)
    ids, boxes = batch["class_ids"][0], batch["boxes"][0]
    assert sorted(ids[:3]) == [1, 2, 2]  # the house is the largest
    assert len(batch["masks"][0]) == 3
    left_out = boxes[ids < 0]
    assert len(left_out) > 10 and (ids[3:] <= 0).all()
    # what is no ground lies in an object or in a region
    covered = masks_of(batch)[0].any(axis=0)
    for y1, x1, y2, x2 in left_out.astype(int):
        covered[y1:y2, x1:x2] = True
    assert covered[np.abs(raw(batch)[0, ..., 0] - 120) > 1].all()


def test_cut_objects_without_a_place_are_ignored_too(tmp_path):
    draw(tmp_path, "s", [("house", (2, 2, 22, 40)), ("house", (50, 0, 70, 64))], (128, 64))
    image = open_dataset(tmp_path, ["house"]).images[0]
    config = replace(CONFIG, classes=("house",), max_instances=1)
    settings = replace(PLAIN, random_share=1.0, visible_share=0.9)
    seen = set()
    for step in range(40):
        batch = TrainingBatches([image], config, settings).batch(step)
        ids, boxes = batch["class_ids"][0], batch["boxes"][0]
        visible = np.abs(raw(batch)[0, ..., 0] - 120) > 1
        for y1, x1, y2, x2 in boxes[ids != 0].astype(int):
            visible[y1:y2, x1:x2] = False
        assert not visible.any()
        seen.add(tuple(ids[ids != 0]))
    assert {(1, -1), (1,)} <= seen


def test_many_boxes_are_joined_with_their_neighbours():
    rows, columns = np.meshgrid(np.arange(0, 1000, 20), np.arange(0, 1000, 20), indexing="ij")
    boxes = np.stack([rows, columns, rows + 10, columns + 10], axis=-1).reshape(-1, 4).astype(np.float32)
    joined = join_boxes(boxes, (1000, 1000))
    assert len(joined) == LEFT_OUT_PLACES
    inside = (boxes[:, None, :2] >= joined[:, :2]) & (boxes[:, None, 2:] <= joined[:, 2:])
    assert inside.all(axis=2).any(axis=1).all()
    assert (joined[:, 2:] - joined[:, :2]).max() <= 150  # and no larger than their part of the image
    few = boxes[:7]
    np.testing.assert_array_equal(join_boxes(few, (1000, 1000)), few)
    assert join_boxes(boxes[:0], (1000, 1000)).shape == (0, 4)


def test_augmented_labels_follow_their_pixels(images):
    settings = SampleSettings(zoom=False)
    batches = TrainingBatches([images["exact"], images["small"]], CONFIG, settings)
    orientations = set()
    for step in range(24):
        batch = batches.batch(step)
        pixels = raw(batch)[0, ..., 0]
        masks = masks_of(batch)[0].astype(bool)
        inside = pixels[masks[batch["class_ids"][0, : len(masks)] == 1].any(axis=0)]
        assert np.ptp(inside) < 1e-3  # one colour, whatever brightness and contrast
        assert (np.abs(pixels - inside[0]) < 1e-3).sum() == len(inside)
        orientations.add(tuple(batch["boxes"][0, 0]))
    assert len(orientations) >= 12  # eight for each image, most of them drawn


def test_zoom_changes_sizes_within_its_limits(images):
    batches = TrainingBatches([images["exact"]], CONFIG, SampleSettings())
    areas = [masks_of(batches.batch(step))[0].astype(int).sum(axis=(1, 2)).max() for step in range(30)]
    assert min(areas) < 0.8 * 560 < 560 * 1.1 < max(areas)
    assert max(areas) <= 560 * 1.25**2 * 1.1


def test_mini_masks_are_cut_to_the_box(images):
    batch = TrainingBatches([images["exact"]], replace(CONFIG, mini_mask_shape=(14, 14)), PLAIN).batch(0)
    assert batch["masks"].shape == (1, 5, 14, 14)
    expanded = expand_mini_mask(batch["masks"][0, 0], batch["boxes"][0, 0], 64, 64)
    np.testing.assert_array_equal(expanded, rectangle(64, 64, (40, 8, 60, 24)) > 0)


def test_an_image_without_objects_gives_an_empty_row(images):
    batch = TrainingBatches([images["bare"]], CONFIG, SampleSettings()).batch(0)
    assert not batch["class_ids"].any() and not batch["boxes"].any() and not batch["masks"].any()


def equal(first, second):
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_batches_depend_on_seed_and_step_alone(images):
    batches = TrainingBatches(list(images.values()), CONFIG, SampleSettings(), batch_size=2, seed=5)
    plain = [batches.batch(step) for step in range(8)]
    for workers in (0, 1, 3):
        with Prefetcher(batches.batch, start=3, workers=workers) as resumed:
            assert all(equal(next(resumed), plain[step]) for step in range(3, 8))
    other = TrainingBatches(list(images.values()), CONFIG, SampleSettings(), batch_size=2, seed=6)
    assert not all(equal(other.batch(step), plain[step]) for step in range(8))


def test_parts_of_a_batch_are_the_batch(images):
    batches = TrainingBatches(list(images.values()), CONFIG, SampleSettings(), batch_size=4)
    whole, singles = batches.batch(2), TrainingBatches(list(images.values()), CONFIG, SampleSettings())
    parts = [batches.batch(2, slice(start, start + 2)) for start in (0, 2)]
    for key in whole:
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), whole[key])
        np.testing.assert_array_equal(
            np.concatenate([singles.batch(8 + i)[key] for i in range(4)]), whole[key]
        )


def test_every_image_is_visited_once_per_epoch_in_a_new_order():
    order = VisitOrder(np.ones(20), seed=1)
    epochs = [[order[20 * epoch + visit] for visit in range(20)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_weights_are_mean_visits_and_never_leave_an_image_out():
    order = VisitOrder(np.array([1.0, 2.5, 1.0]), seed=1)
    assert order.visits_per_epoch == 5
    counts = np.array([np.bincount([order[5 * e + v] for v in range(5)], minlength=3) for e in range(60)])
    assert counts.min(axis=0).tolist() == [1, 2, 1]
    np.testing.assert_allclose(counts.mean(axis=0), np.array([1, 2.5, 1]) / 4.5 * 5, atol=0.25)


def test_a_large_image_is_visited_as_often_as_samples_fit(images):
    batches = TrainingBatches([images["exact"], images["large"]], CONFIG, PLAIN)
    assert batches.samples_per_epoch == np.ceil(1 + 200 * 256 / 64**2)


def test_balance_shows_rare_classes_more_often(images):
    def share(balance):
        settings = replace(PLAIN, balance=balance, random_share=0.0)
        batches = TrainingBatches([images["large"]], CONFIG, settings)
        return np.mean([(batches.batch(step)["class_ids"] == 1).any() for step in range(60)])

    assert share(True) > share(False) + 0.1


def test_validation_covers_each_image_once_and_never_changes(images):
    batches = ValidationBatches([images["large"], images["small"]], CONFIG, SampleSettings(), batch_size=3)
    with Prefetcher(batches.batch, stop=len(batches)) as prefetched:
        found = list(prefetched)
    assert len(found) == len(batches) == (4 * 4 + 1 + 2) // 3
    assert all(equal(batch, batches.batch(number)) for number, batch in enumerate(found))
    for batch in found:
        check_objects(batch)
    assert equal(
        {key: value[-1:] for key, value in found[-1].items()},
        {key: value[:1] for key, value in found[0].items()},
    )  # filled up from the beginning


def test_validation_can_be_limited_to_windows_of_all_images(images):
    batches = ValidationBatches([images["large"], images["small"]], CONFIG, PLAIN, batch_size=2, limit=2)
    assert len(batches) == 2
    assert (raw(batches.batch(1))[-1, :12] < 1).all()  # the last window is the small image's


def test_a_sample_knows_which_part_of_it_is_no_padding(images):
    settings = SampleSettings(zoom=False)
    batches = TrainingBatches([images["small"]], CONFIG, settings, seed=3)
    boxes = set()
    for number in range(16):
        sample = batches.sample(number)
        y1, x1, y2, x2 = sample.content
        boxes.add(sample.content)
        shown = np.zeros(sample.image.shape[:2], bool)
        shown[y1:y2, x1:x2] = True
        values = raw({"images": sample.image})
        np.testing.assert_allclose(values[~shown], 0, atol=1e-4)
        assert (values[shown] > 10).all()
    assert len(boxes) > 1  # turned images of sides that differ


def test_an_error_of_a_worker_reaches_the_consumer_at_its_place(images):
    broken = replace(images["exact"], read=fail)
    batches = TrainingBatches([broken], CONFIG, SampleSettings())
    with Prefetcher(batches.batch, workers=2) as iterator, pytest.raises(DatasetError, match="gone"):
        next(iterator)

    def make(number):
        if number == 2:
            raise ValueError("third")
        return number

    with Prefetcher(make, workers=2) as iterator:
        assert [next(iterator), next(iterator)] == [0, 1]
        with pytest.raises(ValueError, match="third"):
            next(iterator)


def fail(window):
    raise DatasetError("gone")


def test_prefetching_is_bounded_ordered_and_stops():
    made = []
    before = threading.active_count()

    def make(number):
        time.sleep(0.01 if number % 2 else 0.0)
        made.append(number)
        return number

    with Prefetcher(make, workers=3, depth=4) as iterator:
        assert [next(iterator) for _ in range(6)] == list(range(6))
        time.sleep(0.1)
        assert len(made) <= 6 + 4
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(iterator)
    assert list(Prefetcher(make, start=2, stop=5, workers=2)) == [2, 3, 4]
    assert list(Prefetcher(make, start=2, stop=5, workers=0)) == [2, 3, 4]


def test_a_model_of_other_bands_is_refused(images):
    config = replace(CONFIG, band_mean=(1.0,), band_scale=(1.0,))
    with pytest.raises(DatasetError, match="has 3 bands, the model 1"):
        TrainingBatches(list(images.values()), config, PLAIN)
    with pytest.raises(DatasetError, match="no images"):
        TrainingBatches([], CONFIG, PLAIN)


def test_the_suggested_number_of_places_is_enough(images):
    assert suggest_max_instances(list(images.values()), (64, 64)) == 10
    # 26 objects fit into one window; a tenth more, rounded up
    assert suggest_max_instances([images["large"]], (256, 256)) == 30
    assert suggest_max_instances([images["large"]], (256, 256), at_most=20) == 20


def test_instances_are_counted_in_what_a_sample_shows_of_the_ground(tmp_path):
    # 12 pixels every 16: 64 pixels touch at most 5 x 5, those of 64 * 1.25 = 80 at most 6 x 6 objects
    spread = [("barn", (y, x, y + 12, x + 12)) for y in range(0, 320, 16) for x in range(0, 320, 16)]
    draw(tmp_path, "s", spread, (320, 320))
    image = open_dataset(tmp_path, ["barn"]).images[0]
    assert most_instances([image], (64, 64), zoom=1.0) == 25
    assert most_instances([image], (64, 64)) == 36
    assert most_instances([image], (64, 64), min_dim=640, zoom=1.0) == 9  # shown twice as large
    config = replace(CONFIG, classes=("barn",), max_instances=suggest_max_instances([image], (64, 64)))
    batches = TrainingBatches([image], config, SampleSettings())
    assert not any(len(batches.sample(number).left_out) for number in range(200))


def test_16_bit_images_of_many_bands_make_batches(tmp_path):
    write_raster(tmp_path / "s" / "s.tif", noise(80, 90, bands=5).astype(np.uint16) * 250)
    write_raster(tmp_path / "s" / "s-field-1.png", rectangle(80, 90, (10, 10, 50, 50)))
    image = open_dataset(tmp_path, ["field"]).images[0]
    config = replace(CONFIG, classes=("field",), band_mean=(3e4,) * 5, band_scale=(1e4,) * 5)
    batch = TrainingBatches([image], config, SampleSettings()).batch(0)
    assert batch["images"].shape == (1, 64, 64, 5)
    assert np.abs(batch["images"]).max() < 5
