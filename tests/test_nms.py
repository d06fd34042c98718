"""Non-maximum suppression against the greedy algorithm, and picking rows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from maskrcnn.network import nms
from maskrcnn.network.picking import best_indices, gather_rows, scatter_rows
from on_backend import plain_iou, random_boxes, reference, run


def greedy(boxes, threshold, count, valid=None, groups=None):
    """The definition: take the best box, drop what overlaps it too much, go on with the rest."""
    alive = np.ones(len(boxes), bool) if valid is None else valid.copy()
    groups = np.zeros(len(boxes)) if groups is None else groups
    kept = []
    for index, box in enumerate(boxes):
        if len(kept) == count:
            break
        if alive[index]:
            kept.append(index)
            alive &= ~((plain_iou(box, boxes) > threshold) & (groups == groups[index]))
    return kept


def suppress_parts(boxes, threshold, valid=None, groups=None, **options):
    return nms.non_max_suppression(boxes, threshold, valid=valid, groups=groups, **options)


def suppress(boxes, threshold, count, *parts):
    """`non_max_suppression` of parts (valid, groups), checked for form: the kept indices."""
    indices, kept = run(suppress_parts, boxes, np.float32(threshold), *parts, count=count)
    assert indices.shape == kept.shape == (count,)
    assert indices.dtype == np.int32
    assert kept.dtype == bool
    assert (indices[~kept] == 0).all()
    assert kept[: kept.sum()].all()
    return list(indices[kept])


def test_a_worse_box_that_overlaps_a_better_one_is_dropped_and_frees_a_third():
    boxes = np.array([[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18], [30, 30, 40, 40]], np.float32)
    assert suppress(boxes, 0.3, 4) == [0, 2, 3]  # 1 would suppress 2, but is gone


def test_an_overlap_of_exactly_the_threshold_is_kept():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    assert suppress(boxes, 0.5, 2) == [0, 1]
    assert suppress(boxes, 0.49, 2) == [0]


@pytest.mark.parametrize("count", [1, 20, 700])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_it_agrees_with_the_greedy_algorithm_across_blocks(threshold, count):
    boxes = random_boxes(np.random.default_rng(3), 2 * nms.BLOCK + 77)
    assert suppress(boxes, threshold, count) == greedy(boxes, threshold, count)


def test_a_long_chain_of_neighbours_is_settled_in_order():
    starts = np.arange(nms.BLOCK + 40, dtype=np.float32) * 4  # each overlaps with its two neighbours only
    boxes = np.stack([starts, np.zeros_like(starts), starts + 10, np.full_like(starts, 10)], axis=1)
    assert suppress(boxes, 0.3, len(boxes)) == list(range(0, len(boxes), 2))


def test_boxes_that_do_not_take_part_neither_stay_nor_suppress():
    random = np.random.default_rng(4)
    boxes, valid = random_boxes(random, 500), random.random(500) < 0.6
    assert suppress(boxes, 0.4, 300, valid) == greedy(boxes, 0.4, 300, valid)
    assert suppress(boxes, 0.4, 300, np.zeros(500, bool)) == []


def test_groups_do_not_see_each_other():
    random = np.random.default_rng(5)
    boxes, groups = random_boxes(random, 500), random.integers(1, 4, 500).astype(np.int32)
    valid = np.ones(500, bool)
    assert suppress(boxes, 0.3, 400, valid, groups) == greedy(boxes, 0.3, 400, valid, groups)


def test_boxes_without_area_all_stay():
    boxes = np.zeros((3, 4), np.float32)
    assert suppress(boxes, 0.5, 3) == [0, 1, 2]


def test_images_of_a_batch_are_apart():
    random = np.random.default_rng(6)
    boxes = np.stack(
        [random_boxes(random, 600), random_boxes(random, 600) * 0.001, random_boxes(random, 600)]
    )
    valid = np.stack([np.ones(600, bool), np.ones(600, bool), np.zeros(600, bool)])
    indices, kept = run(suppress_parts, boxes, np.float32(0.5), valid, count=50)
    for image in range(3):
        assert list(indices[image][kept[image]]) == greedy(boxes[image], 0.5, 50, valid[image])


def test_it_picks_as_the_original_did():
    cases, detect = reference("cases"), reference("detect")
    order = np.argsort(-cases["nms_scores"], kind="stable")
    picked = suppress(cases["b1"][order].astype(np.float32), 0.3, 40)
    np.testing.assert_array_equal(order[picked], cases["nms_03"])
    np.testing.assert_array_equal(suppress(detect["pre_nms_boxes"], 0.7, 1000), detect["nms_ix"])


def test_equal_scores_are_ranked_by_index():
    scores = np.array([[1, 3, 3, 1, 3, 2], [0, 0, 0, 0, 0, 0]], np.float32)
    picked = run(lambda values: best_indices(values, 4), scores)
    np.testing.assert_array_equal(picked, [[1, 2, 4, 5], [0, 1, 2, 3]])
    many = np.random.default_rng(7).integers(0, 5, (2, 3000)).astype(np.float32)
    np.testing.assert_array_equal(
        run(lambda values: best_indices(values, 1000), many),
        np.argsort(-many, axis=1, kind="stable")[:, :1000],
    )


def test_rows_are_gathered_and_scattered_image_by_image():
    table = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    indices = np.array([[3, 0], [1, 1]], np.int32)
    np.testing.assert_array_equal(run(gather_rows, table, indices), [table[0, [3, 0]], table[1, [1, 1]]])
    np.testing.assert_array_equal(
        run(gather_rows, table > 12, indices), [table[0, [3, 0]] > 12, table[1, [1, 1]] > 12]
    )
    values = np.array([[5, 7], [1, 2]], np.int32)
    np.testing.assert_array_equal(
        run(lambda v, i: scatter_rows(v, i, 4), values, indices), [[7, 0, 0, 5], [0, 3, 0, 0]]
    )


def test_the_number_of_images_may_be_unknown_when_tensorflow_traces():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX and PyTorch always know it")
    import tensorflow as tf

    boxes = random_boxes(np.random.default_rng(8), 300)
    traced = tf.function(lambda b: nms.non_max_suppression(b, 0.5, 40)).get_concrete_function(
        tf.TensorSpec((None, 300, 4), tf.float32)
    )
    indices, kept = traced(ops.convert_to_tensor(boxes[None]))
    assert list(indices.numpy()[kept.numpy()]) == greedy(boxes, 0.5, 40)
