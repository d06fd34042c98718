"""Objects that several scenes show come out once, whole, and as one big scene would give them."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import pytest

from ann.data.outlines.masks import crop_mask
from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import Here
from drawn_scenes import in_reading_order, perfect_finder, settings
from maskrcnn.instances.pipeline import find_by_workers
from maskrcnn.instances.seams import (
    SharedInstance,
    finest_grid,
    groups,
    into_group,
    into_scene,
    merge_scenes,
    neighbours,
    shared_boxes,
)
from maskrcnn.instances.shapes import draw, make_shape


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a scene lies, in map units."""

    north: float
    west: float
    rows: int
    columns: int
    row_size: float = 1.0
    column_size: float = 1.0


def place_of(box) -> Place:
    """The scene that shows a box of a label scene, whose pixels are of one map unit."""
    y1, x1, y2, x2 = box
    return Place(north=-float(y1), west=float(x1), rows=y2 - y1, columns=x2 - x1)


def detect_in_scenes(labels, boxes, classes=None, scores=None):
    """Detect in windows of a label scene as in scenes of their own: objects as (class, score, pixels).

    classes, scores: of each label, or functions of scene and label. Returns [(class_id, score, (H, W) bool)].
    """
    scenes = [place_of(box) for box in boxes]
    beside = neighbours(scenes)
    result = []
    for group in groups(beside):
        grid = finest_grid([scenes[number] for number in group])
        down, right = -grid.north, grid.west
        shared = []
        for number in group:
            y1, x1, y2, x2 = boxes[number]
            view = labels[y1:y2, x1:x2]
            finder = perfect_finder(view, *(kind and kind(number) for kind in (classes, scores)))
            blocks = find_by_workers(
                ArrayScene(np.ones((*view.shape, 1), np.uint8)),
                Here(finder),
                settings(),
                shared=shared_boxes(scenes[number], [scenes[other] for other in beside[number]]),
            )
            ids = []
            for block in blocks:
                ids.append(block.instance_ids)
                for one in block.instances:
                    if one.shape is None:
                        result.append((one.class_id, one.score, number, one.id))
                    else:
                        shared.append(
                            SharedInstance(
                                scene=number,
                                id=one.id,
                                class_id=one.class_id,
                                score=one.score,
                                shape=one.shape,
                            )
                        )
            ids = np.concatenate(ids)
            for index, one in enumerate(result):
                if len(one) == 4 and one[2] == number:
                    pixels = np.zeros(labels.shape, bool)
                    pixels[y1:y2, x1:x2] = ids == one[3]
                    result[index] = (*one[:2], pixels)
        for one in merge_scenes({number: scenes[number] for number in group}, grid, shared):
            pixels = np.zeros(labels.shape, bool)
            frame = (-int(down), -int(right), labels.shape[0] - int(down), labels.shape[1] - int(right))
            for piece in one.shape:
                draw(pixels, frame, piece, True)
            result.append((one.class_id, one.score, pixels))
    return result


def as_labels(found, shape) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    for number, (_, _, pixels) in enumerate(found, 1):
        assert not labels[pixels].any(), "two objects have a pixel in common"
        labels[pixels] = number
    return in_reading_order(labels)


def apart(rng, height=90, width=100, gap=6, count=60) -> np.ndarray:
    """Rectangles, L and U shapes and rings of any size, `gap` pixels or more apart."""
    labels, value = np.zeros((height, width), np.int32), 0
    for _ in range(count):
        h, w = (int(rng.choice([1, 3, 8, 20, 45]) + rng.integers(0, 6)) for _ in range(2))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        if labels[max(0, y - gap) : y + h + gap, max(0, x - gap) : x + w + gap].any():
            continue
        shape = np.ones((h, w), bool)
        kind = rng.integers(0, 4)
        if kind == 1 and min(h, w) > 3:
            shape[: h // 2, : w // 2] = False
        elif kind == 2 and min(h, w) > 4:
            shape[1 : h - 1, 1 : w - 1] = False
        elif kind == 3 and min(h, w) > 4:
            shape[: h - 2, w // 3 : w - w // 3] = False
        value += 1
        labels[y : y + h, x : x + w][shape] = value
    return in_reading_order(labels)


def layout(rng, height, width, overlap):
    """Scenes that cover all, row by row, of many sizes; each shares `overlap` pixels with the one before."""
    rows = [0, *sorted(rng.choice(np.arange(15, height - 14), rng.integers(0, 3), replace=False)), height]
    boxes = []
    for top, bottom in itertools.pairwise(rows):
        columns = [
            0,
            *sorted(rng.choice(np.arange(15, width - 14), rng.integers(0, 4), replace=False)),
            width,
        ]
        for left, right in itertools.pairwise(columns):
            boxes.append((max(0, int(top) - overlap), max(0, int(left) - overlap), int(bottom), int(right)))
    order = rng.permutation(len(boxes))
    return [boxes[index] for index in order]


@pytest.mark.parametrize("overlap", [0, 1, 7, 30])
@pytest.mark.parametrize("chance", range(15))
def test_scenes_in_any_layout_and_order_give_the_objects_of_one_big_scene(chance, overlap):
    rng = np.random.default_rng([chance, overlap])
    labels = apart(rng)
    count = labels.max() + 1
    boxes = layout(rng, *labels.shape, overlap)
    found = detect_in_scenes(
        labels,
        boxes,
        classes=lambda number: np.random.default_rng([chance, number]).integers(1, 4, count).tolist(),
        scores=lambda number: np.random.default_rng([number, chance]).uniform(0.7, 1, count).tolist(),
    )
    np.testing.assert_array_equal(as_labels(found, labels.shape), labels)


def test_an_object_whole_in_two_scenes_is_one_whatever_class_they_give_it():
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 25:35] = 1
    found = detect_in_scenes(
        labels,
        [(0, 0, 40, 40), (0, 20, 40, 60)],
        classes=lambda number: [0, 1 + number],
        scores=lambda number: [0, 0.8 + 0.1 * number],
    )
    assert [(class_id, score) for class_id, score, _ in found] == [(2, pytest.approx(0.9))]
    np.testing.assert_array_equal(as_labels(found, labels.shape), labels)


def shared(scene, *boxes, score=0.9, class_id=1):
    """Objects of a scene as boxes in its pixels."""
    return [
        SharedInstance(
            scene=scene,
            id=number,
            class_id=class_id,
            score=score,
            shape=make_shape([crop_mask(np.ones((y2 - y1, x2 - x1)), y1, x1)]),
        )
        for number, (y1, x1, y2, x2) in enumerate(boxes, 1)
    ]


WEST, EAST = place_of((0, 0, 40, 40)), place_of((0, 40, 40, 80))  # side by side


def merged_boxes(scenes, found):
    grid = finest_grid(list(scenes.values()))
    return sorted(one.shape.box for one in merge_scenes(scenes, grid, found))


@pytest.mark.parametrize("short", [0, 1, 2])
def test_an_object_across_adjacent_scenes_is_one_though_each_draws_it_a_little_short(short):
    found = [*shared(0, (10, 20, 20, 40 - short)), *shared(1, (11, short, 21, 15))]
    assert merged_boxes({0: WEST, 1: EAST}, found) == [(10, 20, 21, 55)]


def test_neighbours_that_meet_at_a_corner_over_the_border_of_adjacent_scenes_stay_two():
    found = [*shared(0, (10, 20, 20, 40)), *shared(1, (19, 0, 30, 15))]
    assert merged_boxes({0: WEST, 1: EAST}, found) == [(10, 20, 20, 40), (19, 40, 30, 55)]


def test_a_third_scene_across_the_border_says_that_two_objects_touch_there():
    middle = place_of((0, 20, 40, 60))
    found = [
        *shared(0, (10, 25, 20, 40)),
        *shared(1, (10, 0, 20, 15)),
        *shared(2, (10, 5, 20, 20), (10, 20, 20, 35)),  # whole in this one
    ]
    assert merged_boxes({0: WEST, 1: EAST, 2: middle}, found) == [(10, 25, 20, 40), (10, 40, 20, 55)]


def test_terraced_houses_that_a_border_cuts_stay_apart_where_another_scene_drew_them_as_one():
    scenes = {0: place_of((0, 0, 40, 40)), 1: place_of((0, 30, 40, 70))}
    found = [*shared(0, (10, 20, 30, 40), score=0.8), *shared(1, (10, 0, 20, 20), (20, 0, 30, 20), score=0.9)]
    assert len(merged_boxes(scenes, found)) >= 2


@pytest.mark.parametrize("factor", [2, 3, 1.7])
def test_scenes_of_other_pixel_sizes_show_the_same_objects(factor):
    """A coarse scene beside and over a fine one: the object is once there, in pixels of the fine one."""
    fine = Place(north=100.0, west=0.0, rows=100, columns=100)
    coarse = Place(
        north=100.0, west=60.0, rows=round(100 / factor), columns=50, row_size=factor, column_size=factor
    )
    # 20 to 40 m down and 70 to 90 m right of the corner: whole in both
    box = [round(value / factor) for value in (20, 10, 40, 30)]
    found = [*shared(0, (20, 70, 40, 90)), *shared(1, tuple(box), score=0.8)]
    assert merged_boxes({0: fine, 1: coarse}, found) == [(20, 70, 40, 90)]


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [1.0, 1.5, 2.0, 3.3])
def test_going_to_the_finer_grid_and_back_changes_nothing(offset, size):
    rng = np.random.default_rng(3)
    coarse = Place(
        north=90.0 + offset, west=10.0 - offset, rows=20, columns=30, row_size=size, column_size=size
    )
    grid = finest_grid([Place(north=100.0, west=0.0, rows=200, columns=200), coarse])
    shape = make_shape([crop_mask(rng.random((20, 30)) < 0.4)])
    there = into_group(shape, coarse, grid)
    back = into_scene(there, grid, coarse)
    assert back.box == shape.box
    np.testing.assert_array_equal(back.pieces[0].bits, shape.pieces[0].bits)


def test_only_neighbours_are_compared_however_many_scenes_there_are():
    side = 60
    photos = [
        Place(north=-80.0 * row, west=80.0 * column, rows=100, columns=100)
        for row in range(side)
        for column in range(side)
    ]
    alone = Place(north=1e4, west=-1e4, rows=5, columns=5)
    start = time.perf_counter()
    beside = neighbours([*photos, alone])
    assert time.perf_counter() - start < 10  # 6.5 million pairs would take longer
    assert beside[side + 1] == (0, 1, 2, side, side + 2, 2 * side, 2 * side + 1, 2 * side + 2)
    assert beside[-1] == ()
    assert [len(group) for group in groups(beside)] == [side * side, 1]
