"""How class rasters are scored, and how much rare classes count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import LabelValues
from ann.data.readers.pairs import find_pairs, read_pairs
from ann.training.image_size import ImageSize
from labelled_files import noise, write_raster
from unet.preparation import class_weights
from unet.scores import CellScores, add_up, count_cells

LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, UNKNOWN]])
PREDICTED = np.array([[0, 1, 1, 1], [0, 2, 0, 2]])


def scores(*pairs, classes=("road", "water")):
    return CellScores(classes, add_up([count_cells(*pair, len(classes)) for pair in pairs], len(classes)))


def test_scores_are_those_of_the_confusion_matrix():
    found = scores((LABELS, PREDICTED))
    assert found.counts.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert found.accuracy == 5 / 7
    road = found.of_class(1)
    assert road["IoU"] == pytest.approx(2 / 3) and road["Dice"] == pytest.approx(4 / 5)
    assert road["precision"] == pytest.approx(2 / 3) and road["recall"] == 1
    assert found.mean("recall") == pytest.approx((1 + 0.5) / 2)
    columns = found.columns()
    assert columns["IoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    for name in ("IoU", "Dice", "precision", "recall"):
        assert columns[f"{name}_water"] == found.of_class(2)[name]


def test_counts_add_up_over_images():
    twice = scores((LABELS, PREDICTED), (LABELS, PREDICTED))
    assert twice.counts.confusion.tolist() == [[4, 2, 0], [0, 4, 0], [2, 0, 2]]
    assert twice.columns() == scores((LABELS, PREDICTED)).columns()


def test_a_class_that_is_nowhere_has_no_score_and_does_not_lower_the_mean():
    found = scores(
        (np.zeros((2, 2), int), np.zeros((2, 2), int)), (LABELS, LABELS), classes=("road", "water")
    )
    assert found.mean("IoU") == 1
    alone = scores((np.array([[0, 1]]), np.array([[0, 1]])))
    assert math.isnan(alone.of_class(2)["IoU"]) and alone.mean("IoU") == 1


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_relaxed_scores_forgive_three_cells(shift, expected):
    labels, predicted = np.zeros((20, 20), int), np.zeros((20, 20), int)
    labels[:, 8], predicted[:, 8 + shift] = 1, 1
    road = scores((labels, predicted), classes=("road",)).of_class(1)
    assert road["relaxed_precision"] == road["relaxed_recall"] == expected
    assert road["IoU"] == (shift == 0)


def test_what_is_found_far_away_lowers_the_relaxed_precision_alone():
    labels, predicted = np.zeros((20, 20), int), np.zeros((20, 20), int)
    labels[:, 3], predicted[:, 5], predicted[:, 15] = 1, 1, 1
    road = scores((labels, predicted), classes=("road",)).of_class(1)
    assert (road["relaxed_precision"], road["relaxed_recall"]) == (0.5, 1.0)


def test_rare_classes_weigh_more_by_the_root_of_their_share(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[:16], labels[:4, :16] = 1, 2
    write_raster(tmp_path / "images" / "a.png", noise(64, 64))
    write_raster(tmp_path / "masks" / "a.png", labels)
    dataset = read_pairs(tmp_path, find_pairs(tmp_path), ("road", "water"), LabelValues(ids={}))
    background, road, water = class_weights(dataset, (64, 64), ImageSize(0, 64, False, multiple=8))
    assert road / background == pytest.approx((3072 / 960) ** 0.5, rel=0.01)
    assert water / road == pytest.approx((960 / 64) ** 0.5, rel=0.02)
    assert background * 3072 + road * 960 + water * 64 == pytest.approx(64 * 64, rel=0.01)
