"""Proposals from the scores of the anchors."""

from __future__ import annotations

import keras
import numpy as np

from maskrcnn.network.anchors import make_anchors
from maskrcnn.network.boxes import normalise_boxes
from maskrcnn.network.proposals import select_proposals
from on_backend import (
    ANCHOR_RATIOS,
    ANCHOR_SCALES,
    BOX_DEVIATION,
    gradients,
    plain_iou,
    random_boxes,
    reference,
    run,
)

APART = np.array(
    [[0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.8, 0.8], [0, 0, 0.2, 0.19]], np.float32
)


def propose(scores, deltas, anchors, candidates=6000, count=3, nms_threshold=0.7):
    return run(
        select_proposals,
        np.float32(scores),
        np.float32(deltas),
        anchors,
        candidates=candidates,
        count=count,
        nms_threshold=nms_threshold,
        box_deviation=BOX_DEVIATION,
    )


def test_the_best_anchors_come_first_and_doubles_are_dropped():
    rois = propose([[0.5, 0.7, 0.1, 0.6]], np.zeros((1, 4, 4)), APART)
    np.testing.assert_allclose(rois[0], APART[[1, 3, 2]], atol=1e-6)


def test_missing_proposals_are_zero_rows_at_the_end():
    rois = propose([[0.5, 0.7, 0.1, 0.6]], np.zeros((1, 4, 4)), APART, count=6)
    np.testing.assert_allclose(rois[0, :3], APART[[1, 3, 2]], atol=1e-6)
    assert not rois[0, 3:].any()


def test_equal_scores_go_by_the_index_of_the_anchor():
    rois = propose([[0.5, 0.5, 0.5, 0.5]], np.zeros((1, 4, 4)), APART, count=2)
    np.testing.assert_allclose(rois[0], APART[:2], atol=1e-6)


def test_only_the_candidates_are_looked_at():
    rois = propose([[0.5, 0.7, 0.1, 0.6]], np.zeros((1, 4, 4)), APART, candidates=2)
    np.testing.assert_allclose(rois[0, :2], APART[[1, 3]], atol=1e-6)
    assert not rois[0, 2].any()


def test_deltas_are_scaled_applied_and_cut_at_the_image():
    deltas = np.zeros((1, 4, 4))
    deltas[0, 2] = [5, 10, 0, 0]  # shift by half the height and by the width
    rois = propose([[0, 0, 1, 0]], deltas, APART, count=1)
    np.testing.assert_allclose(rois[0, 0], [0.7, 0.8, 0.9, 1.0], atol=1e-6)


def test_wild_deltas_of_a_network_that_diverges_give_boxes_inside_of_the_image():
    deltas = np.random.default_rng(1).standard_normal((1, 4, 4)) * 1e4
    rois = propose([[0.1, 0.2, 0.3, 0.4]], deltas, APART, count=4)
    assert ((rois >= 0) & (rois <= 1)).all()


def test_images_of_a_batch_are_apart_and_proposals_do_not_double():
    random = np.random.default_rng(2)
    anchors = random_boxes(random, 900)
    scores, deltas = random.random((2, 900)), random.standard_normal((2, 900, 4))
    both = propose(scores, deltas, anchors, candidates=500, count=60, nms_threshold=0.5)
    for image in range(2):
        alone = propose(scores[image : image + 1], deltas[image : image + 1], anchors, 500, 60, 0.5)
        np.testing.assert_allclose(both[image], alone[0], atol=1e-6)
        solid = both[image][(both[image] != 0).any(axis=-1)]
        for index, roi in enumerate(solid[1:], start=1):
            assert (plain_iou(roi, solid[:index]) <= 0.5).all()


def test_nothing_flows_back():
    random = np.random.default_rng(3)

    def total(scores, deltas):
        rois = select_proposals(
            scores, deltas, APART, candidates=4, count=2, nms_threshold=0.7, box_deviation=BOX_DEVIATION
        )
        return keras.ops.sum(rois) + 0.0 * keras.ops.sum(scores)

    for gradient in gradients(total, random.random((1, 4), np.float32), random.random((1, 4, 4), np.float32)):
        assert not gradient.any()


def test_proposals_are_those_of_the_original():
    detect = reference("detect")
    anchors = np.asarray(normalise_boxes(make_anchors((256, 256), ANCHOR_SCALES, ANCHOR_RATIOS), (256, 256)))
    rois = propose(detect["scores"], detect["deltas"], anchors, count=1000)
    np.testing.assert_allclose(rois, detect["rpn_rois"], atol=1e-6)
