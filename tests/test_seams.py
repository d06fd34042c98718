"""Objects that several scenes show come out once, whole, and as one big scene would give them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import Here
from drawn_scenes import in_reading_order, perfect_finder, settings
from maskrcnn.instances.pipeline import find_by_workers
from maskrcnn.instances.seams import (
    SharedInstance,
    finest_grid,
    groups,
    merge_scenes,
    neighbours,
    shared_boxes,
)
from maskrcnn.instances.shapes import draw

BOUNDED = hypothesis_settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


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
