"""COCO's scores: cases whose scores are known, agreement with pycocotools, windows and whole images."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ann.data.outlines.masks import CroppedMask, crop_mask, paste
from ann.data.outlines.rle import mask_from_runs, runs_from_mask
from ann.data.readers.formats import open_dataset
from ann.data.samples.batches import ValidationBatches
from ann.data.samples.samples import SampleSettings
from ann.devices.sharing import Sharing
from labelled_files import noise, rectangle, write_raster, write_scene
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.scores.average_precision import score
from maskrcnn.scores.results import ImageResult, compress, make_objects
from maskrcnn.scores.scenes import detect_image
from maskrcnn.scores.windows import CONFIDENCE, detect_windows

SIZE = (100, 120)
CLASSES = ("house", "tree")


def box_mask(y1, x1, y2, x2):
    return CroppedMask(row=y1, column=x1, pixels=np.ones((y2 - y1, x2 - x1), bool))


def result(truth, found, size=SIZE):
    """truth: [(class id, box)], found: [(class id, box, score)]."""
    return ImageResult(
        name="image",
        height=size[0],
        width=size[1],
        truth=make_objects([box_mask(*box) for _, box in truth], [one[0] for one in truth], *size),
        found=make_objects(
            [box_mask(*box) for _, box, _ in found],
            [one[0] for one in found],
            *size,
            scores=[one[2] for one in found],
        ),
    )


A, B, C = (0, 0, 20, 20), (30, 30, 60, 50), (70, 70, 90, 110)


def test_what_is_found_exactly_scores_1():
    columns = score([result([(1, A), (2, B)], [(1, A, 0.9), (2, B, 0.3)])], CLASSES).columns()
    assert all(value == pytest.approx(1) for value in columns.values()), columns
    assert {"box_AP", "box_AP50", "box_AP75", "box_AR", "mask_AP", "mask_AR"} <= set(columns)
    assert {"mask_AP_house", "mask_AP50_house", "mask_AP_tree", "mask_AP50_tree"} <= set(columns)


def test_one_of_two_found_is_half_of_the_recall():
    columns = score([result([(1, A), (1, B)], [(1, A, 0.9)])], CLASSES).columns()
    assert columns["mask_AR"] == pytest.approx(0.5)
    assert columns["mask_AP"] == pytest.approx(51 / 101)  # precision 1 at recalls of 0 to 0.5


def test_a_false_detection_above_a_right_one_halves_the_precision():
    scores = score([result([(1, A)], [(1, A, 0.5), (1, C, 0.9)])], CLASSES)
    assert scores.average_precision("mask") == pytest.approx(0.5)
    scores = score([result([(1, A)], [(1, A, 0.9), (1, C, 0.5)])], CLASSES)
    assert scores.average_precision("mask") == pytest.approx(1)


def test_a_wrong_class_is_not_found():
    scores = score([result([(1, A)], [(2, A, 0.9)])], CLASSES)
    assert scores.average_precision("mask") == 0
    assert math.isnan(scores.columns()["mask_AP_tree"])  # has no labelled object
    assert scores.truth.tolist() == [1, 0] and scores.found.tolist() == [0, 1]


def test_a_loose_detection_counts_at_low_thresholds_only():
    loose = (0, 0, 20, 32)  # IoU 400 / 640 = 0.625: right at 0.5, 0.55 and 0.6 of ten thresholds
    scores = score([result([(1, A)], [(1, loose, 0.9)])], CLASSES)
    assert scores.average_precision("mask") == pytest.approx(0.3)
    assert scores.average_precision("box", 0.5) == pytest.approx(1)
    assert scores.average_precision("box", 0.75) == 0
    assert scores.average_recall("box") == pytest.approx(0.3)


def test_in_a_region_of_a_class_its_detections_count_neither_way():
    inside = (72, 75, 80, 85)
    truth = [(1, A), (-1, C)]
    ignored = score([result(truth, [(1, inside, 0.9), (1, A, 0.5), (1, C, 0.8)])], CLASSES)
    assert ignored.average_precision("mask") == pytest.approx(1)
    assert ignored.truth.tolist() == [1, 0]
    wrong = score([result([(1, A)], [(1, inside, 0.9), (1, A, 0.5)])], CLASSES)
    assert wrong.average_precision("mask") == pytest.approx(0.5)
    assert score([result([(1, A), (-2, C)], [(1, inside, 0.9), (1, A, 0.5)])], CLASSES).average_precision(
        "mask"
    ) == pytest.approx(0.5)


def test_more_than_a_hundred_objects_of_an_image_all_count():
    boxes = [(8 * row, 8 * column, 8 * row + 6, 8 * column + 6) for row in range(20) for column in range(10)]
    found = [(1, box, 0.9 - index / 1000) for index, box in enumerate(boxes)]
    scores = score([result([(1, box) for box in boxes], found, size=(160, 80))], CLASSES)
    assert scores.average_recall("mask") == pytest.approx(1)
    assert scores.average_precision("mask") == pytest.approx(1)


@pytest.mark.parametrize(
    ("results", "found"),
    [([], 0), ([result([], [])], 0), ([result([], [(1, A, 0.9)])], 1), ([result([(-1, A)], [])], 0)],
)
def test_without_labelled_objects_there_are_no_scores(results, found):
    scores = score(results, CLASSES)
    assert all(math.isnan(value) for value in scores.columns().values())
    assert scores.truth.sum() == 0 and scores.found.sum() == found
    assert all(math.isnan(value) for value in scores.best_confidence("mask", "house"))


def test_with_objects_and_no_detection_all_scores_are_0():
    columns = score([result([(1, A), (2, B)], [])], CLASSES).columns()
    assert set(columns.values()) == {0.0}


def test_the_best_confidence_leaves_the_false_ones_out():
    found = [(1, A, 0.9), (1, B, 0.7), (1, C, 0.2)]
    scores = score([result([(1, A), (1, B)], found)], CLASSES)
    assert scores.best_confidence("mask", "house") == pytest.approx((0.7, 1, 1))


def random_mask(random, share=0.98):
    height, width = random.integers(5, 30, 2)
    row, column = random.integers(0, SIZE[0] - height), random.integers(0, SIZE[1] - width)
    return crop_mask(random.random((height, width)) < share, int(row), int(column))


def shifted(mask, random):
    row = int(np.clip(mask.row + random.integers(-2, 3), 0, SIZE[0] - mask.pixels.shape[0]))
    column = int(np.clip(mask.column + random.integers(-2, 3), 0, SIZE[1] - mask.pixels.shape[1]))
    return replace(mask, row=row, column=column)


def test_masks_are_compressed_as_pycocotools_does():
    random = np.random.default_rng(1)
    full = crop_mask(np.ones(SIZE, bool))
    columns = crop_mask(np.ones((SIZE[0], 3), bool), 0, 5)
    for mask in [full, columns, *(random_mask(random, 0.6) for _ in range(50))]:
        expected = coco_mask.encode(np.asfortranarray(paste(mask, *SIZE).astype(np.uint8)))
        assert compress(mask, *SIZE) == expected
        again = mask_from_runs(runs_from_mask(mask, *SIZE), *SIZE)
        assert again.box == mask.box
        np.testing.assert_array_equal(again.pixels, mask.pixels)
    assert coco_mask.area(compress(None, *SIZE)) == 0
    with pytest.raises(ValueError, match="inside"):
        runs_from_mask(box_mask(0, 0, 101, 5), *SIZE)


def test_scores_are_those_of_pycocotools_on_coco_files(tmp_path):
    random = np.random.default_rng(2)
    results, labels, detections = [], [], []
    for image_id in range(1, 7):
        truth = [random_mask(random) for _ in range(40)]
        truth_ids = random.choice([1, 2, 2, -1, -2], 40)
        found = [shifted(mask, random) for mask in truth] + [random_mask(random) for _ in range(20)]
        found_ids = np.append(np.abs(truth_ids), random.integers(1, 3, 20))
        found_ids[::7] = 3 - found_ids[::7]
        scores = random.choice(np.arange(0.1, 1, 0.05), 60).round(2)  # many equal ones
        results.append(
            ImageResult(
                name=str(image_id),
                height=SIZE[0],
                width=SIZE[1],
                truth=make_objects(truth, truth_ids, *SIZE),
                found=make_objects(found, found_ids, *SIZE, scores=scores),
            )
        )
        for mask, class_id in zip(truth, truth_ids.tolist(), strict=True):
            labels.append(annotation(mask, class_id, image_id) | {"id": len(labels) + 1, "area": mask.area})
        for mask, class_id, value in zip(found, found_ids.tolist(), scores.tolist(), strict=True):
            detections.append(annotation(mask, class_id, image_id) | {"score": value})
    file = {
        "images": [{"id": image_id, "height": SIZE[0], "width": SIZE[1]} for image_id in range(1, 7)],
        "categories": [{"id": 1, "name": "house"}, {"id": 2, "name": "tree"}],
        "annotations": labels,
    }
    (tmp_path / "labels.json").write_text(json.dumps(file))
    ours = score(results, CLASSES).columns()
    for kind, coco_kind in (("box", "bbox"), ("mask", "segm")):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(tmp_path / "labels.json"))
            run = COCOeval(truth, truth.loadRes([dict(one) for one in detections]), coco_kind)
            run.evaluate()  # never more than 100 detections of an image here
            run.accumulate()
            run.summarize()
        expected = {"AP": run.stats[0], "AP50": run.stats[1], "AP75": run.stats[2], "AR": run.stats[8]}
        assert 0.05 < run.stats[0] < 0.95
        for name, value in expected.items():
            assert ours[f"{kind}_{name}"] == pytest.approx(value, abs=1e-12), (kind, name)
        precision = run.eval["precision"][:, :, 1, 0, -1]
        if kind == "mask":
            assert ours["mask_AP_tree"] == pytest.approx(precision.mean(), abs=1e-12)
            assert ours["mask_AP50_tree"] == pytest.approx(precision[0].mean(), abs=1e-12)


def annotation(mask, class_id, image_id):
    compressed = compress(mask, *SIZE)
    y1, x1, y2, x2 = mask.box
    return {
        "image_id": image_id,
        "category_id": abs(class_id),
        "iscrowd": int(class_id < 0),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": compressed | {"counts": compressed["counts"].decode()},
    }


CONFIG = MaskRCNNConfig(
    classes=CLASSES, image_shape=(64, 64), band_mean=(100.0,) * 3, band_scale=(50.0,) * 3, max_instances=3
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A scene of 64 x 128 pixels, with six houses and a tree on the seam of its two windows; a small one."""
    root = tmp_path_factory.mktemp("images")
    houses = [("house", (4 + 20 * row, 4 + 80 * column, 16 + 20 * row, 20 + 80 * column))
              for row in range(3) for column in range(2)]  # fmt: skip
    write_scene(root, "large", [*houses, ("tree", (10, 62, 30, 82))], size=(64, 128))
    write_scene(root, "small", [("tree", (5, 5, 25, 25))], size=(40, 50))
    return open_dataset(root, CLASSES)


class Oracle:
    """A detector that knows the labels by the pixels it is shown; its scores are all 0.8."""

    def __init__(self, images):
        self.calls = []
        self.known = []
        for image in images:
            example = image.read(None)
            ids = np.zeros(example.image.shape[:2], np.int32)
            for number, mask in enumerate(example.masks, 1):
                ids[paste(mask, *ids.shape)] = number
            self.known.append(((example.image.astype(np.float32) - 100) / 50, ids, example.class_ids))

    def __call__(self, images, windows, confidence):
        self.calls.append((len(images), confidence))
        return [self.detect(image, window.astype(int)) for image, window in zip(images, windows, strict=True)]

    def detect(self, image, window):
        y1, x1, y2, x2 = window
        shown = image[y1:y2, x1:x2]
        boxes, class_ids = [], []
        for pixels, ids, classes in self.known:
            for row in range(pixels.shape[0] - shown.shape[0] + 1):
                for column in range(pixels.shape[1] - shown.shape[1] + 1):
                    place = np.s_[row : row + shown.shape[0], column : column + shown.shape[1]]
                    if shown.any() and np.array_equal(pixels[place], shown):
                        for number in np.unique(ids[place])[1:]:
                            y1n, x1n, y2n, x2n = crop_mask(ids[place] == number).box
                            boxes.append((y1n + y1, x1n + x1, y2n + y1, x2n + x1))
                            class_ids.append(classes[number - 1])
        return SimpleNamespace(
            boxes=np.array(boxes, np.int32).reshape(-1, 4),
            class_ids=np.array(class_ids, np.int32),
            scores=np.full(len(boxes), 0.8, np.float32),
            masks=np.pad(np.ones((len(boxes), 26, 26), np.float32), ((0, 0), (1, 1), (1, 1)), "edge"),
        )


def test_windows_are_scored_as_the_network_sees_them(dataset):
    windows = ValidationBatches(
        dataset.images, replace(CONFIG, max_instances=100), SampleSettings(augment=False)
    )
    oracle = Oracle(dataset.images)
    results = detect_windows(oracle, windows, batch_size=2)
    assert oracle.calls == [(2, CONFIDENCE)] * 2
    assert [result.name for result in results] == [
        "large/large.png[0:64,0:64]", "large/large.png[0:64,64:128]", "small/small.png"
    ]  # fmt: skip
    # of the tree at columns 62 to 81 the first window shows a tenth: too little to be judged by
    assert sorted(results[0].truth.class_ids.tolist()) == [-2, 1, 1, 1]
    scores = score(results, CLASSES)
    assert scores.truth.tolist() == [6, 2]
    assert scores.average_precision("box") == pytest.approx(1), scores.columns()
    assert scores.average_precision("mask", 0.75) == pytest.approx(1)


def test_processes_that_share_the_windows_find_what_one_finds(dataset):
    """Threads stand for the processes: one more than there are windows."""
    windows = ValidationBatches(
        dataset.images, replace(CONFIG, max_instances=100), SampleSettings(augment=False)
    )
    count, oracle = 4, Oracle(dataset.images)
    said, meeting = [None] * count, threading.Barrier(count, timeout=60)

    def detect(rank):
        def gather(own):
            said[rank] = pickle.dumps(own)
            meeting.wait()
            return [pickle.loads(one) for one in said]

        return detect_windows(oracle, windows, batch_size=2, sharing=Sharing(rank, count, gather))

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(detect, range(count)))
    assert len(oracle.calls) == 3  # each window was looked at once
    expected = detect_windows(oracle, windows)
    for results in found:
        assert [result.name for result in results] == [result.name for result in expected]
        np.testing.assert_equal(score(results, CLASSES).columns(), score(expected, CLASSES).columns())


def test_whole_images_are_scored_as_they_are_detected_in(dataset):
    (large, small) = dataset.images
    oracle = Oracle(dataset.images)
    results = [detect_image(oracle, image, CONFIG, batch_size=2) for image in (large, small)]
    assert (results[0].height, results[0].width) == (64, 128)
    scores = score(results, CLASSES)
    assert scores.truth.tolist() == [6, 2] and scores.found.tolist() == [6, 2]
    assert scores.average_precision("mask", 0.75) == pytest.approx(1), scores.columns()


def test_in_the_strip_of_a_single_scene_cut_off_objects_are_not_scored(tmp_path):
    from ann.data.dataset import part_of_image
    from ann.data.pixels.windows import Window

    write_raster(tmp_path / "s" / "s.png", noise(64, 128))
    write_raster(tmp_path / "s" / "s-house-1.png", rectangle(64, 128, (10, 50, 30, 68)))
    (image,) = open_dataset(tmp_path, ["house"]).images
    part = part_of_image(image, Window(row=0, column=64, height=64, width=64))
    assert detect_image(Oracle([part]), part, CONFIG).truth.class_ids.tolist() == [-1]
