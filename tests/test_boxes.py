"""Box arithmetic and anchors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.network import boxes as box_ops
from maskrcnn.network.anchors import anchor_count, make_anchors
from on_backend import ANCHOR_RATIOS, ANCHOR_SCALES, plain_iou, random_boxes, reference, run

UNIT = np.array([[0, 0, 10, 10]], np.float32)


def test_iou_of_equal_half_covered_touching_and_distant_boxes():
    others = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 5], [5, 5, 15, 15], [0, 10, 10, 20], [50, 50, 60, 60]], np.float32
    )
    np.testing.assert_allclose(run(box_ops.iou, UNIT, others), [[1, 0.5, 25 / 175, 0, 0]], rtol=1e-6)


def test_iou_with_a_box_without_area_or_turned_inside_out_is_zero():
    others = np.array([[0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 2, 2]], np.float32)
    np.testing.assert_array_equal(run(box_ops.iou, UNIT, others), [[0, 0, 0]])
    np.testing.assert_array_equal(run(box_ops.iou, np.zeros((2, 4), np.float32), others), np.zeros((2, 3)))


def test_iou_works_batch_by_batch():
    random = np.random.default_rng(1)
    boxes = np.stack([random_boxes(random, 7) for _ in range(2)])
    others = np.stack([random_boxes(random, 5) for _ in range(2)])
    expected = [[plain_iou(box, theirs) for box in mine] for mine, theirs in zip(boxes, others, strict=True)]
    np.testing.assert_allclose(run(box_ops.iou, boxes, others), expected, atol=1e-6)


def test_iou_with_no_boxes_at_all_is_empty():
    assert run(box_ops.iou, np.zeros((2, 0, 4), np.float32), np.zeros((2, 3, 4), np.float32)).shape == (
        2,
        0,
        3,
    )


def test_deltas_shift_by_shares_of_the_side_and_scale_by_exponents():
    deltas = np.array([[0.5, -0.1, np.log(2), 0]], np.float32)
    np.testing.assert_allclose(run(box_ops.apply_deltas, UNIT, deltas), [[0, -1, 20, 9]], atol=1e-5)


def test_encoded_deltas_turn_a_box_into_its_target():
    random = np.random.default_rng(2)
    boxes, targets = random_boxes(random, 50, 100), random_boxes(random, 50, 100)
    back = run(lambda a, b: box_ops.apply_deltas(a, box_ops.encode_deltas(a, b)), boxes, targets)
    np.testing.assert_allclose(back, targets, atol=2e-4)


def test_padding_encodes_to_zero_and_wild_deltas_stay_finite_where_it_counts():
    nothing = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(run(box_ops.encode_deltas, nothing, UNIT), nothing)
    np.testing.assert_array_equal(run(box_ops.encode_deltas, UNIT, nothing), nothing)
    assert np.isfinite(run(box_ops.apply_deltas, UNIT, np.full((1, 4), 1e4, np.float32))).all()


def test_clipping_cuts_at_the_window_of_each_image():
    boxes = np.array([[[-5, -5, 15, 15], [90, 90, 99, 99]]] * 2, np.float32)
    windows = np.array([[0, 0, 10, 12], [1, 2, 100, 100]], np.float32)
    expected = [[[0, 0, 10, 12], [10, 12, 10, 12]], [[1, 2, 15, 15], [90, 90, 99, 99]]]
    np.testing.assert_array_equal(run(box_ops.clip_boxes, boxes, windows), expected)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 63), min_size=4, max_size=4), st.integers(65, 2000), st.integers(65, 2000))
def test_normalised_boxes_come_back(box, height, width):
    boxes = np.array([box], np.float32)
    normalised = np.asarray(box_ops.normalise_boxes(boxes, (height, width)))
    np.testing.assert_allclose(normalised[0, 3], (box[3] - 1) / (width - 1), atol=1e-6)
    back = box_ops.denormalise_boxes(box_ops.normalise_boxes(boxes, (height, width)), (height, width))
    np.testing.assert_array_equal(np.around(np.asarray(back)), boxes)


def test_box_arithmetic_is_that_of_the_original():
    cases = reference("cases")
    b1, b2 = cases["b1"].astype(np.float32), cases["b2"].astype(np.float32)
    np.testing.assert_allclose(run(box_ops.iou, b1, b2), cases["overlaps"], atol=2e-6)
    np.testing.assert_allclose(run(box_ops.apply_deltas, b1, cases["deltas"]), cases["applied"], atol=1e-4)
    np.testing.assert_allclose(run(box_ops.encode_deltas, b1[:9], b2), cases["refinement"], atol=1e-6)
    normalised = run(lambda boxes: box_ops.normalise_boxes(boxes, (256, 200)), b1)
    np.testing.assert_allclose(normalised, cases["norm"], atol=1e-6)
    pixels = run(lambda boxes: box_ops.denormalise_boxes(boxes, (256, 200)), cases["norm"])
    np.testing.assert_array_equal(np.around(pixels), cases["denorm"])


def test_anchors_are_ordered_by_level_row_column_ratio():
    anchors = make_anchors((8, 12), (8, 16), (0.25, 1), strides=(4, 8))
    assert anchors.dtype == np.float32
    assert len(anchors) == anchor_count((8, 12), (0.25, 1), strides=(4, 8)) == 2 * (2 * 3 + 1 * 2)
    np.testing.assert_allclose(anchors[0], [-8, -2, 8, 2])  # tall
    np.testing.assert_allclose(anchors[1], [-4, -4, 4, 4])
    np.testing.assert_allclose(anchors[3], [-4, 0, 4, 8])  # one column on
    np.testing.assert_allclose(anchors[7], [0, -4, 8, 4])  # one row on
    np.testing.assert_allclose(anchors[13], [-8, -8, 8, 8])  # next level


def test_anchors_are_those_of_the_original():
    cases = reference("cases")
    large = make_anchors((1024, 1024), ANCHOR_SCALES, ANCHOR_RATIOS)
    assert len(large) == cases["anchors_1024x1024_s1_n"] == anchor_count((1024, 1024), ANCHOR_RATIOS)
    np.testing.assert_allclose(large[::97], cases["anchors_1024x1024_s1_every97"], rtol=1e-7, atol=1e-6)
    oblong = make_anchors((128, 192), ANCHOR_SCALES, ANCHOR_RATIOS)
    np.testing.assert_array_equal(oblong, cases["anchors_128x192_s1"])


def test_each_level_needs_its_scale():
    with pytest.raises(ValueError, match="one anchor scale for each of 5"):
        make_anchors((64, 64), (32, 64), (1,))
