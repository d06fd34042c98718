"""Scores of classes, and images on their way through a network."""

from __future__ import annotations

import numpy as np
import pytest

from ann.data.example import Example
from ann.errors import SceneError
from ann.inference.tile_rows import Here
from ann.inference.workers import ThreadWorkers
from classifier.config import ClassifierConfig
from classifier.inference import class_worker, tell_classes
from classifier.scores import ClassScores
from classifier.tables import Line, write_table

CLASSES = ("field", "forest", "water")


def scores_of(labels, predicted, confidence=0.8):
    probabilities = np.full((len(labels), 3), (1 - confidence) / 2, np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return ClassScores(CLASSES, np.array(labels), probabilities)


def test_each_class_counts_alike_in_the_balanced_accuracy():
    scores = scores_of([0] * 8 + [1, 1], [0] * 8 + [0, 1])
    assert scores.accuracy == pytest.approx(0.9)
    assert scores.balanced_accuracy == pytest.approx(0.75)
    assert scores.confusion.tolist() == [[8, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert scores.of_class(0)["precision"] == pytest.approx(8 / 9)
    assert scores.of_class(1) == pytest.approx({"precision": 1, "recall": 0.5, "F1": 2 / 3})
    assert np.isnan(scores.of_class(2)["recall"])


def test_calibration_is_the_distance_of_probability_and_share_of_right_answers():
    scores = scores_of([0, 0, 0, 0], [0, 0, 1, 1], confidence=0.8)
    assert scores.calibration() == [(pytest.approx(0.8), 0.5, 4)]
    assert scores.calibration_error == pytest.approx(0.3)
    assert np.isnan(scores_of([], []).accuracy)


class Images:
    """Image n is of the value n; 3 can't be read, 5 shows nothing."""

    readers = 2

    def __len__(self):
        return 11

    def read(self, index):
        if index == 3:
            raise SceneError("It is damaged")
        pixels = np.full((40, 20, 1), index, np.uint8)
        valid = np.zeros((40, 20), bool) if index == 5 else None
        return Example(image=pixels, masks=(), class_ids=np.zeros(0, np.int32), name=str(index), valid=valid)


def brightest(images):
    """(B, 3): how far the brightest pixel is from 0, 1 and 2."""
    return -np.abs(images.max(axis=(1, 2)) - np.arange(3))


CONFIG = ClassifierConfig(
    classes=CLASSES, image_shape=(32, 32), backbone="resnet18", band_mean=(0.0,), band_scale=(1.0,)
)


@pytest.mark.parametrize("devices", [1, 2])
def test_images_are_told_in_their_order_and_a_bad_one_does_not_stop_the_others(devices):
    functions = [class_worker(brightest, 4)] * devices
    workers = Here(functions[0]) if devices == 1 else ThreadWorkers(functions)
    told = list(tell_classes(Images(), CONFIG, workers, 4))
    assert [one.index for one in told] == list(range(11))
    assert told[3].probabilities is None and "damaged" in told[3].error
    assert told[5].probabilities is None and not told[5].error
    for one in told:
        if one.probabilities is not None:
            np.testing.assert_allclose(one.probabilities, -np.abs(one.index - np.arange(3)))


def test_a_table_that_is_not_finished_does_not_appear(tmp_path):
    def lines():
        yield 1, Line(image="a", point=(1.5, 2.0), probabilities=np.array([0.2, 0.7, 0.1]))
        raise SceneError("no more")

    with pytest.raises(SceneError):
        list(write_table(tmp_path / "told.csv", lines(), CLASSES))
    assert not list(tmp_path.iterdir())
