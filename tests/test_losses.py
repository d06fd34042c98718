"""The losses, as (sum, count)."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.network import losses
from on_backend import gradients, reference, run


def mean(loss, *arrays):
    total, count = run(loss, *arrays)
    assert total.shape == count.shape == ()
    assert total.dtype == count.dtype == np.float32
    return total / max(count, 1)


def test_cross_entropy_counts_sampled_anchors_only():
    match = np.array([[1, -1, 0]], np.int32)
    logits = np.array([[[0, 0], [np.log(3), 0], [50, -50]]], np.float32)
    total, count = run(losses.rpn_class_loss, match, logits)
    assert count == 2
    assert total == pytest.approx(np.log(2) + np.log(4 / 3), rel=1e-6)


def test_smooth_l1_is_a_parabola_below_1_and_a_line_above():
    match = np.array([[1, -1, 1]], np.int32)
    targets = np.zeros((1, 3, 4), np.float32)
    deltas = np.array([[[0.5, 0, 0, 0], [9, 9, 9, 9], [0, -3, 1, 0]]], np.float32)
    total, count = run(losses.rpn_box_loss, match, targets, deltas)
    assert count == 8  # numbers, not anchors
    assert total == pytest.approx(0.125 + 2.5 + 0.5)


def test_padded_regions_count_as_background_in_the_class_loss():
    logits = np.zeros((2, 3, 4), np.float32)
    assert mean(losses.class_loss, np.zeros((2, 3), np.int32), logits) == pytest.approx(np.log(4))


def test_box_loss_reads_the_deltas_of_the_true_class():
    deltas = np.zeros((1, 2, 3, 4), np.float32)
    deltas[0, 0, 1] = 7  # another class than the true one
    deltas[0, 1, 0] = 7  # a background region
    assert run(losses.box_loss, np.array([[2, 0]], np.int32), np.zeros((1, 2, 4), np.float32), deltas) == (
        0,
        4,
    )


def test_mask_loss_reads_the_mask_of_the_true_class():
    masks = np.full((1, 2, 2, 2, 3), 0.5, np.float32)
    masks[0, 0, :, :, 2] = 0.8
    targets = np.ones((1, 2, 2, 2), np.float32)
    targets[0, 0, 0, 0] = 0
    total, count = run(losses.mask_loss, np.array([[2, 0]], np.int32), targets, masks)
    assert count == 4  # pixels
    assert total == pytest.approx(-3 * np.log(0.8) - np.log(0.2), rel=1e-5)


def test_certain_and_wrong_masks_stay_finite():
    masks = np.stack([np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2))], axis=-1).astype(np.float32)
    wrong = mean(losses.mask_loss, np.array([[1]], np.int32), np.zeros((1, 1, 2, 2), np.float32), masks)
    assert 14 < wrong < 17  # -log of the smallest probability
    right = mean(losses.mask_loss, np.array([[1]], np.int32), np.ones((1, 1, 2, 2), np.float32), masks)
    assert abs(right) < 1e-6


def test_without_any_object_the_sums_and_counts_are_zero():
    nothing = np.zeros((2, 5), np.int32)
    boxes, deltas = np.zeros((2, 5, 4), np.float32), np.ones((2, 5, 4), np.float32)
    assert run(losses.rpn_box_loss, nothing, boxes, deltas) == (0, 0)
    assert run(losses.rpn_class_loss, nothing, np.ones((2, 5, 2), np.float32)) == (0, 0)
    assert run(losses.box_loss, nothing, boxes, np.ones((2, 5, 3, 4), np.float32)) == (0, 0)
    masks = np.ones((2, 5, 4, 4, 3), np.float32)
    assert run(losses.mask_loss, nothing, np.zeros((2, 5, 4, 4), np.float32), masks) == (0, 0)


def test_sums_and_counts_add_up_over_the_images_of_a_batch():
    random = np.random.default_rng(1)
    class_ids = random.integers(0, 3, (4, 6)).astype(np.int32)
    targets = random.standard_normal((4, 6, 4)).astype(np.float32)
    deltas = random.standard_normal((4, 6, 3, 4)).astype(np.float32)
    whole = run(losses.box_loss, class_ids, targets, deltas)
    parts = [run(losses.box_loss, class_ids[s], targets[s], deltas[s]) for s in (slice(0, 1), slice(1, 4))]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-5)


def test_weight_loss_is_the_sum_of_the_mean_squares():
    weights = [np.full((2, 3), 2, np.float32), np.array([1, 3], np.float32)]
    assert run(lambda *variables: losses.weight_loss(variables, 0.1), *weights) == pytest.approx(
        0.1 * (4 + 5)
    )
    assert run(lambda ignored: losses.weight_loss([], 0.1), weights[0]) == 0


def test_gradients_are_finite_where_nothing_was_sampled():
    nothing = np.zeros((1, 2), np.int32)
    masks = np.array([0.0, 1.0], np.float32)[None, :, None, None, None] * np.ones((1, 2, 2, 2, 3), np.float32)
    (gradient,) = gradients(
        lambda m: losses.mask_loss(nothing, np.zeros((1, 2, 2, 2), np.float32), m)[0], masks
    )
    assert not gradient.any()
    (gradient,) = gradients(
        lambda x: losses.rpn_class_loss(nothing, x)[0], np.full((1, 2, 2), 1e4, np.float32)
    )
    assert not gradient.any()


def test_losses_are_those_of_the_original():
    train = reference("train")
    match = train["match"]
    deltas = np.zeros((*match.shape, 4), np.float32)
    deltas[match == 1] = train["anchor_deltas"][0]
    for expected, loss, *arrays in (
        ("rpn_class_loss", losses.rpn_class_loss, match, train["rpn_class_logits"]),
        ("rpn_bbox_loss", losses.rpn_box_loss, match, deltas, train["rpn_bbox_pred"]),
        ("mrcnn_class_loss", losses.class_loss, train["target_class_ids"], train["mrcnn_class_logits"]),
        (
            "mrcnn_bbox_loss",
            losses.box_loss,
            train["target_class_ids"],
            train["target_bbox"],
            train["mrcnn_bbox"],
        ),
    ):
        assert mean(loss, *arrays) == pytest.approx(float(train[expected]), rel=1e-5), expected
