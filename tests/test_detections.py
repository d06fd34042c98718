"""Detections from the heads' outputs."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.network.detections import select_detections
from on_backend import BOX_DEVIATION, plain_iou, random_boxes, reference, run

WHOLE = [[0, 0, 1, 1]]


def select(rois, probabilities, deltas, windows, confidence, **options):
    return select_detections(
        rois, probabilities, deltas, windows, confidence=confidence, box_deviation=BOX_DEVIATION, **options
    )


def detect(rois, probabilities, deltas=None, windows=WHOLE, count=5, confidence=0.0, **options):
    images, regions, classes = np.shape(probabilities)
    deltas = np.zeros((images, regions, classes, 4)) if deltas is None else deltas
    rows, columns = (0, max(4 - regions, 0)), (0, max(3 - classes, 0))  # one shape for all: compiled once
    boxes, class_ids, scores = run(
        select,
        np.pad(np.float32(rois), [(0, 0), rows, (0, 0)]),
        np.pad(np.float32(probabilities), [(0, 0), rows, columns]),
        np.pad(np.float32(deltas), [(0, 0), rows, columns, (0, 0)]),
        np.float32(windows),
        np.float32(confidence),
        count=count,
        **({"nms_threshold": 0.3, "background_competes": True} | options),
    )
    assert boxes.shape == (images, count, 4)
    assert class_ids.shape == scores.shape == (images, count)
    assert class_ids.dtype == np.int32
    assert not boxes[class_ids == 0].any()
    assert not scores[class_ids == 0].any()
    return boxes, class_ids, scores


LEFT, LEFT_TOO, RIGHT = [0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.38], [0.6, 0.6, 0.9, 0.9]


def test_the_best_class_decides_and_background_is_dropped():
    boxes, class_ids, scores = detect(
        [[LEFT, RIGHT, LEFT]], [[[0.3, 0.1, 0.6], [0.2, 0.8, 0.0], [0.9, 0.1, 0.0]]]
    )
    assert class_ids.tolist() == [[1, 2, 0, 0, 0]]
    np.testing.assert_allclose(scores[0, :2], [0.8, 0.6])
    np.testing.assert_allclose(boxes[0, :2], [RIGHT, LEFT], atol=1e-6)


@pytest.mark.parametrize(("confidence", "found"), [(0.3, [1, 2]), (0.35, [1]), (0.45, [])])
def test_where_the_background_does_not_compete_the_best_object_class_counts(confidence, found):
    probabilities = [[[0.6, 0.4, 0.0], [0.5, 0.18, 0.32]]]
    _, class_ids, scores = detect(
        [[LEFT, RIGHT]], probabilities, confidence=confidence, background_competes=False
    )
    assert class_ids[class_ids > 0].tolist() == found
    np.testing.assert_allclose(scores[0, : len(found)], [0.4, 0.32][: len(found)])
    _, class_ids, _ = detect([[LEFT, RIGHT]], probabilities, confidence=confidence)
    assert not class_ids.any()  # as the legacy models do it


@pytest.mark.parametrize(("nms_threshold", "houses"), [(0.3, 1), (0.5, 2)])
def test_neighbours_at_45_degrees_need_the_threshold_of_trained_models(nms_threshold, houses):
    # two terraced houses of 1 : 3, side by side along the long wall: their boxes share 0.39
    side, shift = 0.4, 0.1
    rois = [[[0.1, 0.1, 0.1 + side, 0.1 + side], [0.1 + shift, 0.1 + shift, 0.5 + shift, 0.5 + shift]]]
    _, class_ids, _ = detect(rois, [[[0.1, 0.9], [0.2, 0.8]]], nms_threshold=nms_threshold)
    assert np.count_nonzero(class_ids) == houses


def test_doubles_are_dropped_within_a_class_only():
    rois = [[LEFT, LEFT_TOO, LEFT_TOO]]
    _, class_ids, scores = detect(rois, [[[0.3, 0.7, 0], [0.4, 0.6, 0], [0.2, 0, 0.8]]])
    assert class_ids.tolist() == [[2, 1, 0, 0, 0]]
    np.testing.assert_allclose(scores[0, :2], [0.8, 0.7])


def test_equal_scores_are_in_the_order_of_the_regions():
    boxes, _, _ = detect([[RIGHT, LEFT, LEFT_TOO]], [[[0.3, 0.7]] * 3])
    np.testing.assert_allclose(boxes[0, :2], [RIGHT, LEFT], atol=1e-6)
    assert not boxes[0, 2:].any()


@pytest.mark.parametrize(("confidence", "expected"), [(0.0, 2), (0.5, 2), (0.6, 1), (0.9, 0)])
def test_confidence_is_the_lowest_score_that_counts(confidence, expected):
    _, class_ids, _ = detect([[LEFT, RIGHT]], [[[0.5, 0.5, 0], [0.25, 0, 0.75]]], confidence=confidence)
    # An equal background comes first, so the first region is background.
    assert (class_ids > 0).sum() == min(expected, 1)
    _, class_ids, _ = detect([[LEFT, RIGHT]], [[[0.25, 0.5, 0.25], [0.25, 0, 0.75]]], confidence=confidence)
    assert (class_ids > 0).sum() == expected


def test_deltas_of_the_class_move_the_box_and_the_window_cuts_it():
    deltas = np.zeros((2, 1, 3, 4))
    deltas[:, :, 1] = [10, 0, 0, 0]  # down by one height
    deltas[:, :, 2] = 99  # of the class that it is not
    boxes, class_ids, _ = detect(
        [[LEFT], [LEFT]], [[[0, 1, 0]]] * 2, deltas, windows=[[0, 0, 1, 1], [0.2, 0.2, 0.5, 0.9]]
    )
    assert class_ids[:, 0].tolist() == [1, 1]
    np.testing.assert_allclose(boxes[:, 0], [[0.4, 0.1, 0.7, 0.4], [0.4, 0.2, 0.5, 0.4]], atol=1e-6)


def test_padded_regions_never_become_detections():
    _, class_ids, _ = detect(np.zeros((1, 3, 4)), [[[0, 1]] * 3])
    assert not class_ids.any()


def test_no_detection_in_one_image_of_a_batch():
    boxes, class_ids, _ = detect([[LEFT], [LEFT]], [[[0.9, 0.1]], [[0.1, 0.9]]], windows=WHOLE * 2)
    assert class_ids.tolist() == [[0] * 5, [1] + [0] * 4]
    assert not boxes[0].any()


def test_more_instances_than_slots_keep_the_best():
    random = np.random.default_rng(1)
    rois = random_boxes(random, 400)[None]
    scores = random.random(400).astype(np.float32) * 0.4 + 0.6
    first = (np.arange(400) % 2).astype(bool)
    probabilities = np.stack([1 - scores, np.where(first, scores, 0), np.where(first, 0, scores)], axis=-1)[
        None
    ]
    boxes, class_ids, found = detect(rois, probabilities, count=20)
    order, expected = np.argsort(-scores, kind="stable"), []
    for index in order:
        rivals = [other for other in expected if first[other] == first[index]]
        if not (plain_iou(rois[0, index], rois[0, rivals].reshape(-1, 4)) > 0.3).any():
            expected.append(index)
    np.testing.assert_allclose(boxes[0], rois[0, expected[:20]], atol=1e-5)
    np.testing.assert_array_equal(class_ids[0], np.where(first, 1, 2)[expected[:20]])
    np.testing.assert_array_equal(found[0], scores[expected[:20]])


@pytest.mark.parametrize(
    ("confidence", "name"),
    [(0.0, "det_conf00"), (0.05, "det_conf05"), (0.7, "det_conf07"), (0.9, "det_conf09")],
)
def test_detections_are_those_of_the_original(confidence, name):
    known = reference("detect")
    boxes, class_ids, scores = detect(
        known["rpn_rois"], known["mrcnn_class"], known["mrcnn_bbox"], count=100, confidence=confidence
    )
    expected = known[name]
    assert (expected[:, 4] > 0).any()
    np.testing.assert_array_equal(class_ids[0], expected[:, 4])
    np.testing.assert_allclose(boxes[0], expected[:, :4], atol=1e-6)
    np.testing.assert_allclose(scores[0], expected[:, 5], atol=1e-6)
