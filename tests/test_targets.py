"""Targets of anchors and regions of interest."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn.network.anchors import make_anchors
from maskrcnn.network.targets import anchor_targets, roi_targets
from on_backend import (
    ANCHOR_RATIOS,
    ANCHOR_SCALES,
    BOX_DEVIATION,
    plain_iou,
    random_boxes,
    reference,
    run,
)

# Anchors


def match_anchors(anchors, class_ids, boxes, noise, size=256):
    match, deltas = run(
        anchor_targets,
        np.float32(anchors),
        np.int32(class_ids),
        np.float32(boxes),
        np.float32(noise),
        anchors_per_image=size,
        box_deviation=BOX_DEVIATION,
    )
    assert match.dtype == np.int32
    assert not deltas[match != 1].any()
    return match, deltas


ROW_OF_ANCHORS = [[0, 0, 10, 10], [0, 2, 10, 12], [0, 6, 10, 16], [0, 8, 10, 18], [0, 40, 10, 50]]


def test_anchors_are_objects_background_or_neither_by_their_overlap():
    # IoU with the instance: 0.43, 0.67, 0.67, 0.43 and 0
    match, deltas = match_anchors(ROW_OF_ANCHORS, [[2]], [[[0, 4, 10, 14]]], np.zeros((1, 5)))
    assert match.tolist() == [[0, 1, 1, 0, -1]]  # two are equally good
    np.testing.assert_allclose(deltas[0, 1:3], [[0, 2, 0, 0], [0, -2, 0, 0]], atol=1e-5)


def test_from_an_overlap_of_seven_tenths_every_anchor_is_an_object():
    match, _ = match_anchors(ROW_OF_ANCHORS[:2], [[1]], [[[0, 0.2, 10, 10.2]]], np.zeros((1, 2)))
    assert match.tolist() == [[1, 0]]
    match, _ = match_anchors(ROW_OF_ANCHORS[:2], [[1]], [[[0, 0.5, 10, 10.5]]], np.zeros((1, 2)))
    assert match.tolist() == [[1, 1]]


def test_an_anchor_between_two_instances_moves_to_the_nearer_one():
    match, deltas = match_anchors([[0, 0, 10, 10]], [[1, 1]], [[[0, 6, 10, 16], [0, -1, 10, 9]]], [[0.0]])
    assert match.tolist() == [[1]]
    np.testing.assert_allclose(deltas[0], [[0, -1, 0, 0]], atol=1e-5)


def test_a_crowd_makes_anchors_neutral_and_is_no_object():
    boxes = [[[0, 4, 10, 14], [0, 44, 10, 60], [0, 0, 0, 0]]]
    anchors = [*ROW_OF_ANCHORS, [50, 0, 60, 10]]
    match, _ = match_anchors(anchors, [[2, -1, 0]], boxes, np.zeros((1, 6)))
    assert match.tolist() == [[0, 1, 1, 0, 0, -1]]


def test_what_lies_inside_of_a_large_crowd_is_no_background():
    # an IoU of 100 / 1,000,000
    anchors = [[500, 500, 510, 510], [996, 500, 1006, 510], [994, 500, 1004, 510], [1200, 0, 1210, 10]]
    match, _ = match_anchors(anchors, [[-1]], [[[0, 0, 1000, 1000]]], np.zeros((1, 4)))
    assert match.tolist() == [[0, -1, 0, -1]]  # 40 % of the second lie inside, 60 % of the third
    rois = [[[0.5, 0.5, 0.51, 0.51], [0.2, 0.2, 0.21, 0.21], [0.96, 0.96, 0.97, 0.97]]]
    found = sample_rois(rois, [[-1]], [[[0, 0, 951, 951]]], np.zeros((1, 1, 9, 9)), image_shape=(1001, 1001))
    np.testing.assert_allclose(found.rois[0], [rois[0][2], *[[0] * 4] * 3], atol=1e-6)


def test_an_image_without_objects_has_background_only():
    noise = [[0.3, 0.2, 0.9, 0.1, 0.4]]
    match, deltas = match_anchors(ROW_OF_ANCHORS, [[0, 0]], np.zeros((1, 2, 4)), noise, size=3)
    assert match.tolist() == [[-1, -1, 0, -1, 0]]  # the lowest noise
    assert not deltas.any()


def test_at_most_half_are_objects_and_the_lowest_noise_wins():
    anchors = [[0, 0, 10, 10]] * 4 + [[50, 50, 60, 60]] * 4
    noise = [[0.9, 0.1, 0.8, 0.2, 0.4, 0.3, 0.2, 0.1]]
    match, _ = match_anchors(anchors, [[1]], [[[0, 0, 10, 10]]], noise, size=5)
    assert match.tolist() == [[0, 1, 0, 1, 0, -1, -1, -1]]


def test_equal_noise_does_not_enlarge_the_sample():
    anchors = make_anchors((64, 64), ANCHOR_SCALES, ANCHOR_RATIOS)
    match, _ = match_anchors(anchors, [[1]], [[[10, 10, 42, 42]]], np.zeros((1, len(anchors))), size=64)
    assert (match != 0).sum() == 64


@pytest.mark.parametrize("seed", range(3))
def test_anchors_agree_with_the_rules_written_out(seed):
    random = np.random.default_rng(seed)
    anchors = make_anchors((128, 128), ANCHOR_SCALES, ANCHOR_RATIOS)
    class_ids = np.zeros((2, 12), np.int32)
    boxes = np.zeros((2, 12, 4), np.float32)
    class_ids[0, :7], class_ids[1, :12] = [1, 2, 0, -1, 1, 2, 1], [1, -2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1]
    boxes[0, :7], boxes[1] = random_boxes(random, 7, 128), random_boxes(random, 12, 128)
    boxes[0, 2] = 0
    match, deltas = match_anchors(
        anchors, class_ids, boxes, random.random((2, len(anchors))), 2 * len(anchors)
    )
    for image in range(2):
        overlaps = np.array([plain_iou(box, anchors) for box in boxes[image]])  # (N, A)
        crowd = (overlaps[class_ids[image] < 0] >= 0.001).any(axis=0)
        overlaps = overlaps[class_ids[image] > 0]
        best = overlaps.max(axis=1, keepdims=True)
        objects = (overlaps.max(axis=0) >= 0.7) | (overlaps >= best - 1e-6).any(axis=0)
        background = (overlaps.max(axis=0) < 0.3) & ~crowd & ~objects
        np.testing.assert_array_equal(match[image] == 1, objects)
        np.testing.assert_array_equal(match[image] == -1, background)
        assert np.abs(deltas[image][objects]).max(axis=1).all()


def test_anchor_targets_are_those_of_the_original():
    cases = reference("cases")
    anchors = make_anchors((256, 256), ANCHOR_SCALES, ANCHOR_RATIOS)
    noise = np.random.default_rng(0).random((1, len(anchors)))
    class_ids, boxes = cases["rpnt_gt_class_ids"][None], cases["rpnt_gt_boxes"][None]
    match, deltas = match_anchors(anchors, class_ids, boxes, noise, size=2 * len(anchors))
    np.testing.assert_array_equal(match[0], cases["rpnt_match_nosub"])
    np.testing.assert_allclose(deltas[match == 1], cases["rpnt_bbox_nosub"], atol=1e-5)
    match, _ = match_anchors(anchors, class_ids, boxes, noise)
    counts = [np.count_nonzero(match == value) for value in (1, -1)]
    assert counts == [np.count_nonzero(cases["rpnt_match_seed123"] == value) for value in (1, -1)]


# Regions of interest

SHAPE = (101, 101)  # so that normalised boxes are whole hundredths


def sample_rois(rois, class_ids, boxes, masks=None, noise=None, **options):
    rois, class_ids, boxes = np.float32(rois), np.int32(class_ids), np.float32(boxes)
    if masks is None:
        masks = np.zeros((*class_ids.shape, *SHAPE), np.uint8)
    noise = np.zeros(rois.shape[:2]) if noise is None else noise
    options = {"count": 4, "positive_share": 0.5, "image_shape": SHAPE, "mask_shape": (4, 4)} | options

    found = run(
        roi_targets, rois, class_ids, boxes, masks, np.float32(noise), box_deviation=BOX_DEVIATION, **options
    )
    images = len(rois)
    assert found.rois.shape == found.deltas.shape == (images, options["count"], 4)
    assert found.class_ids.shape == (images, options["count"])
    assert found.masks.shape == (images, options["count"], *options["mask_shape"])
    assert not found.deltas[found.class_ids == 0].any()
    assert not found.masks[found.class_ids == 0].any()
    return found


INSTANCE = [[[10, 10, 31, 31]]]  # 0.1 to 0.3 normalised
NEAR, HALF, FAR = [0.1, 0.1, 0.3, 0.28], [0.1, 0.1, 0.3, 0.18], [0.5, 0.5, 0.9, 0.9]


def test_objects_stand_first_background_fills_up_and_zeros_end():
    found = sample_rois([[FAR, HALF, NEAR, [0, 0, 0, 0]]], [[3]], INSTANCE)
    assert found.class_ids.tolist() == [[3, 0, 0, 0]]
    np.testing.assert_allclose(found.rois[0], [NEAR, FAR, HALF, [0, 0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(
        found.deltas[0, 0], [0, 0.01 / 0.18 / 0.1, 0, np.log(0.2 / 0.18) / 0.2], atol=1e-4
    )


def test_the_share_of_objects_is_limited_and_the_lowest_noise_wins():
    rois = [[[0.1, 0.1, 0.3, 0.3 - shift] for shift in (0, 0.01, 0.02, 0.03)] + [FAR] * 3]
    noise = [[0.5, 0.1, 0.9, 0.2, 0.3, 0.2, 0.1]]
    found = sample_rois(rois, [[3]], INSTANCE, noise=noise, count=5)
    assert found.class_ids.tolist() == [[3, 3, 0, 0, 0]]
    np.testing.assert_allclose(found.rois[0, :2, 3], [0.29, 0.27], atol=1e-6)
    np.testing.assert_allclose(found.rois[0, 2:], [FAR] * 3, atol=1e-6)


def test_an_image_without_objects_still_teaches_background():
    found = sample_rois([[FAR, NEAR]], [[0, 0]], np.zeros((1, 2, 4)))
    np.testing.assert_allclose(found.rois[0], [FAR, NEAR, [0, 0, 0, 0], [0, 0, 0, 0]], atol=1e-6)
    assert not found.class_ids.any()


def test_an_image_without_proposals_gives_zeros():
    found = sample_rois(np.zeros((1, 3, 4)), [[3]], INSTANCE)
    assert not any(part.any() for part in found)


def test_proposals_on_a_crowd_are_left_out():
    found = sample_rois([[FAR, [0.8, 0.8, 0.95, 0.95], NEAR]], [[3, -1]], [[*INSTANCE[0], [88, 88, 99, 99]]])
    np.testing.assert_allclose(found.rois[0, :2], [NEAR, [0, 0, 0, 0]], atol=1e-6)


def test_more_slots_than_proposals_and_no_slot_for_objects():
    found = sample_rois([[NEAR, FAR]], [[3]], INSTANCE, count=6)
    assert found.class_ids.tolist() == [[3, 0, 0, 0, 0, 0]]
    found = sample_rois([[NEAR, FAR]], [[3]], INSTANCE, count=2, positive_share=0.0)
    np.testing.assert_allclose(found.rois[0], [FAR, [0, 0, 0, 0]], atol=1e-6)


def test_more_instances_than_slots_for_objects():
    random = np.random.default_rng(1)
    boxes = random_boxes(random, 30, 100)[None]
    rois = (boxes - [0, 0, 1, 1]) / 100
    noise = random.random((1, 30))
    found = sample_rois(rois, np.full((1, 30), 2), boxes, noise=noise, count=6)
    assert found.class_ids.tolist() == [[2, 2, 2, 0, 0, 0]]
    np.testing.assert_allclose(found.rois[0, :3], rois[0, np.argsort(noise[0])[:3]], atol=1e-6)
    np.testing.assert_allclose(found.deltas[0], 0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_smallest_sample_has_an_object(count):
    found = sample_rois([[FAR, NEAR]], [[3]], INSTANCE, count=count, positive_share=0.33)
    assert found.class_ids[0].tolist() == [3] + [0] * (count - 1)
    assert found.deltas[0, 0].any()


def test_crowds_without_masks_may_follow_the_instances():
    masks = np.ones((1, 1, *SHAPE), np.uint8)
    found = sample_rois(
        [[FAR, [0.8, 0.8, 0.95, 0.95], NEAR]], [[3, -1]], [[*INSTANCE[0], [88, 88, 99, 99]]], masks
    )
    np.testing.assert_allclose(found.rois[0, :2], [NEAR, [0, 0, 0, 0]], atol=1e-6)
    assert found.masks[0, 0].all()


def test_images_of_a_batch_are_apart():
    random = np.random.default_rng(2)
    boxes = np.stack([random_boxes(random, 5, 100) for _ in range(2)])
    class_ids = np.array([[1, 2, 0, 0, 0], [2, 1, -1, 1, 2]], np.int32)
    rois = np.stack([np.concatenate([random_boxes(random, 20), boxes[i] / 100]) for i in range(2)])
    masks = random.integers(0, 2, (2, 5, *SHAPE)).astype(np.uint8)
    noise = random.random((2, 25))
    both = sample_rois(rois, class_ids, boxes, masks, noise, count=8)
    for image in range(2):
        one = slice(image, image + 1)
        alone = sample_rois(rois[one], class_ids[one], boxes[one], masks[one], noise[one], count=8)
        assert (alone.class_ids > 0).any()
        for part, expected in zip(both, alone, strict=True):
            np.testing.assert_allclose(part[one], expected, atol=1e-6)


def test_the_mask_is_the_part_of_the_instance_that_the_region_shows():
    masks = np.zeros((1, 2, *SHAPE), np.uint8)
    masks[0, 1, 10:31, 10:21] = 1  # left half of the second instance
    boxes = [[[60, 60, 80, 80], *INSTANCE[0]]]
    found = sample_rois([[[0.1, 0.1, 0.3, 0.28]]], [[1, 3]], boxes, masks)
    assert found.class_ids.tolist() == [[3, 0, 0, 0]]
    np.testing.assert_array_equal(found.masks[0, 0], [[1, 1, 0, 0]] * 4)


@pytest.mark.slow
def test_masks_may_come_in_bits():
    random = np.random.default_rng(2)
    masks = random.integers(0, 2, (1, 4, 64, 96)).astype(np.uint8)
    boxes = np.float32([random_boxes(random, 4, 60)])
    rois = (boxes / [63, 95, 63, 95]).astype(np.float32)
    arguments = (rois, [[1, 2, 1, 2]], boxes)
    plain, bits = (
        sample_rois(*arguments, one, image_shape=(64, 96), count=8)
        for one in (masks, np.packbits(masks, axis=-1))
    )
    assert plain.class_ids.any() and 0.1 < plain.masks[plain.class_ids > 0].mean() < 0.9
    np.testing.assert_array_equal(plain.masks, bits.masks)


def test_pixels_of_many_large_masks_are_found():
    # the last pixels are number 2.17 * 10 ** 9 of their image: int32 ends at 2.15 * 10 ** 9
    side, count = 1536, 920
    masks = np.zeros((1, count, side, side), np.uint8)
    masks[0, -1, :, : side // 2] = 1
    boxes, class_ids = np.zeros((1, count, 4)), np.zeros((1, count))
    boxes[0, -1], class_ids[0, -1] = (0, 0, side, side), 3
    found = sample_rois([[[0, 0, 1, 1]]], class_ids, boxes, masks, image_shape=(side, side))
    np.testing.assert_array_equal(found.masks[0, 0], [[1, 1, 0, 0]] * 4)


def test_a_mini_mask_covers_the_box_of_its_instance():
    mini = np.zeros((1, 1, 9, 9), np.uint8)
    mini[0, 0, :, :5] = 1
    exact, right, beyond = [0.1, 0.1, 0.3, 0.3], [0.1, 0.12, 0.3, 0.3], [0.1, 0.1, 0.36, 0.3]
    found = sample_rois(
        [[exact, right, beyond]], [[3]], INSTANCE, mini, [[0.1, 0.2, 0.3]], count=6, mini_masks=True
    )
    np.testing.assert_array_equal(found.masks[0, 0], [[1, 1, 0, 0]] * 4)
    np.testing.assert_array_equal(found.masks[0, 1], [[1, 1, 0, 0]] * 4)
    np.testing.assert_array_equal(found.masks[0, 2], [[1, 1, 0, 0]] * 3 + [[0] * 4])  # nothing below its box


def test_mini_masks_and_whole_masks_agree_on_solid_boxes():
    random = np.random.default_rng(3)
    boxes = np.float32([[[10, 20, 61, 81], [30, 5, 71, 46]]])
    whole = np.zeros((1, 2, *SHAPE), np.uint8)
    for index, (top, left, bottom, right) in enumerate(boxes[0].astype(int)):
        whole[0, index, top:bottom, left:right] = 1
    rois = np.repeat((boxes - [0, 0, 1, 1]) / 100, 10, axis=1)
    rois = rois + random.uniform(-0.05, 0.05, rois.shape)
    options = {"noise": random.random((1, 20)), "count": 20, "positive_share": 1.0}
    first = sample_rois(rois, [[1, 2]], boxes, whole, **options)
    second = sample_rois(rois, [[1, 2]], boxes, np.ones((1, 2, 14, 14), np.uint8), **options, mini_masks=True)
    assert (first.class_ids > 0).sum() > 10
    assert (first.masks != second.masks).mean() < 0.1  # a border is half a pixel of the mask off
    assert 0.1 < first.masks[first.class_ids > 0].mean() < 1


def test_roi_targets_are_those_of_the_original():
    train = reference("train")
    instances, positives = train["class_ids"].shape[1], np.count_nonzero(train["target_class_ids"])
    masks = np.unpackbits(train["masks_packed"], count=instances * 256 * 256).reshape(1, -1, 256, 256)
    found = sample_rois(
        train["rpn_rois"],
        train["class_ids"],
        train["boxes"],
        masks,
        np.random.default_rng(1).random((1, 300)),
        image_shape=(256, 256),
        count=600,
        positive_share=26 / 630,
        mask_shape=(28, 28),
    )
    # Every proposal is used, in another order.
    mine, theirs = (np.lexsort(rois[0].T) for rois in (found.rois, train["output_rois"]))
    np.testing.assert_array_equal(found.rois[0, mine], train["output_rois"][0, theirs])
    np.testing.assert_array_equal(found.class_ids[0, mine], train["target_class_ids"][0, theirs])
    np.testing.assert_allclose(found.deltas[0, mine], train["target_bbox"][0, theirs], atol=1e-5)
    target_masks = np.zeros((600, 28, 28), np.float32)
    target_masks[:positives] = np.unpackbits(train["target_mask_packed"], count=positives * 784).reshape(
        -1, 28, 28
    )
    np.testing.assert_array_equal(found.masks[0, mine], target_masks[theirs])
