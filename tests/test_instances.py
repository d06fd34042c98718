"""Masks are drawn as the original network's were, only where there is data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ann.inference.tiles import Tile
from maskrcnn.instances.instances import box_mask, instances_in_tile, paste_mask

TILE = Tile(row=100, column=200, height=40, width=50)
ALL_VALID = np.ones((40, 50), dtype=bool)


@dataclass
class Detections:
    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


def detections(boxes, scores=None, class_ids=None, masks=None) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, dtype=np.int32).reshape(-1, 4),
        class_ids=np.array(class_ids or [1] * count, dtype=np.int32),
        scores=np.array(scores or [0.9] * count, dtype=np.float32),
        masks=np.ones((count, 28, 28), dtype=np.float32) if masks is None else masks,
    )


def test_pasted_masks_equal_the_originals_pixel_by_pixel():
    reference = np.load(Path(__file__).parent / "reference" / "paste.npz")
    shape = tuple(reference["shape"])
    full = np.unpackbits(reference["full_bits"], count=np.prod(shape)).reshape(shape).astype(bool)
    for index, (box, mask) in enumerate(zip(reference["boxes"], reference["masks"], strict=True)):
        np.testing.assert_array_equal(paste_mask(mask, box, *shape[:2]), full[..., index])


def test_a_full_mask_fades_out_half_a_cell_before_the_boxs_border_only_when_enlarged():
    assert box_mask(np.ones((28, 28), np.float32), 28, 28).all()
    enlarged = box_mask(np.ones((28, 28), np.float32), 280, 280)
    assert enlarged[1:-1, 140].all() and not enlarged[0, 0]  # corners fade in both directions


def test_the_part_of_a_box_outside_is_cut_off():
    full = paste_mask(np.ones((28, 28), np.float32), np.array([-14, 20, 14, 48]), 30, 40)
    expected = np.zeros((30, 40), dtype=bool)
    expected[:14, 20:] = True
    np.testing.assert_array_equal(full, expected)
    assert not paste_mask(np.ones((28, 28), np.float32), np.array([-30, 0, -2, 28]), 30, 40).any()


def test_an_empty_box_gives_an_empty_mask():
    assert not paste_mask(np.ones((28, 28), np.float32), np.array([5, 5, 5, 9]), 10, 10).any()


def test_instances_are_in_scene_pixels_and_in_the_detectors_order():
    found = instances_in_tile(
        detections([[0, 0, 28, 28], [5, 6, 15, 26]], scores=[0.75, 0.9], class_ids=[2, 1]),
        TILE,
        ALL_VALID,
        0.7,
    )
    assert [one.mask.box for one in found] == [(100, 200, 128, 228), (105, 206, 115, 226)]
    assert [one.class_id for one in found] == [2, 1]
    assert [one.score for one in found] == pytest.approx([0.75, 0.9])


def test_masks_never_cover_cells_without_data_and_vanish_where_there_is_none():
    valid = ALL_VALID.copy()
    valid[:, 10:] = False
    found = instances_in_tile(detections([[0, 0, 28, 28], [0, 20, 28, 48]]), TILE, valid, 0.7)
    assert [one.mask.box for one in found] == [(100, 200, 128, 210)]
    assert found[0].mask.area == 280


def test_low_scores_background_and_empty_boxes_are_left_out():
    found = instances_in_tile(
        detections(
            [[0, 0, 9, 9], [0, 0, 9, 9], [3, 3, 3, 9], [0, 0, 9, 9]],
            scores=[0.69, 0.9, 0.9, 0.7],
            class_ids=[1, 0, 1, 3],
        ),
        TILE,
        ALL_VALID,
        0.7,
    )
    assert [one.class_id for one in found] == [3]  # a score equal to the confidence counts


def test_no_detection_gives_no_instance():
    assert instances_in_tile(detections([], masks=np.zeros((0, 28, 28))), TILE, ALL_VALID, 0.7) == []
