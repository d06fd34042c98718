"""The merge rule, case by case: two tiles of 20 x 20 pixels side by side that share 8 columns (12 to 20)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ann.data.outlines.masks import crop_mask
from ann.inference.tiles import cut_tiles
from drawn_scenes import instance
from maskrcnn.instances import shapes
from maskrcnn.instances.merge import Recogniser
from maskrcnn.instances.overlaps import OverlapDecision, decide_pixels
from maskrcnn.instances.pairs import touching_pairs
from maskrcnn.instances.shapes import PackedMask, largest_part, make_shape, middle_point, subtract, unite

GRID = cut_tiles(20, 32, (20, 20), 8)
LEFT, RIGHT = GRID.row(0)


def box(y1, x1, y2, x2, **kwargs):
    return instance(np.ones((y2 - y1, x2 - x1)), y1, x1, **kwargs)


def merge(left, right, grid=GRID):
    """Boxes, classes and scores of what the instances of the two tiles become; best first."""
    recogniser, decision = Recogniser(grid), OverlapDecision()
    settled = recogniser.add_row([(grid.row(0)[0], left), (grid.row(0)[1], right)])
    assert not recogniser.open_sightings
    decided = decision.add(settled, {})
    return [(one.shape.box, one.class_id, one.score) for one in decided]


def test_a_whole_sighting_beats_a_cut_one_of_better_score():
    assert merge([box(5, 8, 9, 16, score=0.8)], [box(5, 12, 9, 16, score=0.99)]) == [((5, 8, 9, 16), 1, 0.8)]


def test_of_two_whole_sightings_the_better_one_counts():
    # rows 5 to 9 and 5 to 10 of the same columns, both clear of the inner borders at columns 12 and 20
    assert GRID.row(0)[1].column == 12
    wide = cut_tiles(20, 48, (20, 32), 16)  # tiles share columns 16 to 32
    found = merge([box(5, 21, 9, 27, score=0.8)], [box(5, 21, 10, 27, score=0.9)], wide)
    assert found == [((5, 21, 10, 27), 1, 0.9)]


def test_an_object_that_both_tiles_cut_is_the_union_with_the_best_score_and_its_class():
    found = merge([box(5, 2, 9, 20, score=0.8, class_id=2)], [box(5, 12, 9, 30, score=0.9, class_id=1)])
    assert found == [((5, 2, 9, 30), 1, 0.9)]


def test_one_object_seen_as_two_classes_is_reported_once_with_the_better_class():
    wide = cut_tiles(20, 48, (20, 32), 16)
    found = merge(
        [box(5, 21, 9, 27, score=0.8, class_id=1)], [box(5, 21, 9, 27, score=0.9, class_id=2)], wide
    )
    assert found == [((5, 21, 9, 27), 2, 0.9)]


def test_touching_objects_that_both_tiles_cut_stay_two():
    found = merge([box(2, 2, 8, 20), box(8, 2, 14, 20)], [box(2, 12, 8, 30), box(8, 12, 14, 30)])
    assert [one[0] for one in found] == [(2, 2, 8, 30), (8, 2, 14, 30)]


def test_below_half_of_the_common_zone_cut_objects_are_not_united():
    # The zone shows rows 0 to 9 of the one, 6 to 15 of the other: 3 of 15 rows are common.
    found = merge([box(0, 2, 9, 20, score=0.9)], [box(6, 12, 15, 30, score=0.8)])
    assert [one[0] for one in found] == [(0, 2, 9, 20), (6, 12, 15, 30)]


def test_a_sighting_that_ends_short_of_the_border_is_continued_by_the_other_tile():
    # Drawn to 4 pixels before the border: it counts as whole until the other tile shows that it goes on.
    assert [one[0] for one in merge([box(5, 4, 9, 16, score=0.9)], [box(5, 12, 9, 31, score=0.8)])] == [
        (5, 4, 9, 31)
    ]
    # All of it is seen by the other tile, which sees more: that one counts, however good the short one is.
    wide = cut_tiles(20, 48, (20, 32), 16)
    assert merge([box(5, 21, 9, 27, score=0.99)], [box(5, 21, 9, 35, score=0.8)], wide) == [
        ((5, 21, 9, 35), 1, 0.8)
    ]


def test_pieces_that_go_on_beyond_each_others_tile_need_to_agree_in_a_third_only():
    # The zone has columns 12 to 20, of which the right piece begins at 16: 3 of 8 columns are common.
    left = [box(5, 2, 9, 19)]
    assert [one[0] for one in merge(left, [box(5, 16, 9, 30)])] == [(5, 2, 9, 30)]
    # 1 of 8 columns: two neighbours, drawn a little too large
    assert len(merge([box(5, 2, 9, 17)], [box(5, 16, 9, 30)])) == 2


def test_a_sighting_that_covers_two_objects_of_the_other_tile_does_not_join_them():
    both = [box(2, 2, 14, 20, score=0.8)]
    found = merge(both, [box(2, 12, 7, 30, score=0.9), box(9, 12, 14, 30, score=0.85)])
    assert len(found) > 1
    assert not any(one[0] == (2, 2, 14, 30) for one in found)


def test_different_ends_of_one_object_are_joined_although_one_looks_whole():
    wide = cut_tiles(40, 96, (40, 64), 32)  # tiles share columns 32 to 64
    # The left tile ends the object 16 columns before its border, the right one shows it up to its own.
    left_end, right_end = box(5, 10, 9, 48, score=0.9), box(5, 32, 9, 90, score=0.8)
    assert merge([left_end], [right_end], wide) == [((5, 10, 9, 90), 1, 0.9)]
    # The left tile drew the rest too, over a part of the first: pieces of one object.
    assert [one[0] for one in merge([left_end, box(5, 40, 9, 64)], [right_end], wide)] == [(5, 10, 9, 90)]
    # The left tile saw the rest as an object of its own beside the first.
    neighbours = merge([left_end, box(5, 48, 9, 64, score=0.7)], [right_end], wide)
    assert [one[0] for one in neighbours] == [(5, 10, 9, 48), (5, 48, 9, 90)]
    # Seen as another class it is still one object; a common corner only is no continuation.
    other = box(5, 32, 9, 90, score=0.8, class_id=2)
    assert merge([left_end], [other], wide) == [((5, 10, 9, 90), 1, 0.9)]
    assert len(merge([left_end], [box(8, 32, 18, 90, score=0.8)], wide)) == 2


def test_drawings_of_very_different_size_are_one_object_if_neither_has_another_partner():
    wide = cut_tiles(20, 48, (20, 32), 16)
    small, large = box(6, 22, 9, 26, score=0.9), box(4, 20, 12, 28, score=0.8)
    assert [one[0] for one in merge([small], [large], wide)] == [(6, 22, 9, 26)]
    # With a partner of its own, the small one is an object inside of the other.
    assert len(merge([small, large], [large], wide)) == 2


def test_a_strip_at_the_border_is_no_object_where_the_other_tile_saw_something_beside_it():
    assert [one[0] for one in merge([box(5, 6, 9, 12)], [box(5, 12, 9, 14)])] == [(5, 6, 9, 12)]


def merge_three(first, second, third):
    """As `merge`, with three tiles of 20 x 32 pixels that begin at columns 0, 8 and 16."""
    grid = cut_tiles(20, 48, (32, 32), 24)
    settled = Recogniser(grid).add_row(list(zip(grid.row(0), (first, second, third), strict=True)))
    return [(one.shape.box, one.class_id, one.score) for one in OverlapDecision().add(settled, {})]


def test_a_part_of_a_cut_sighting_yields_with_it_to_the_whole_one():
    found = merge_three([box(5, 28, 9, 31, score=0.95)], [box(5, 28, 9, 37)], [box(5, 31, 9, 38, score=0.8)])
    assert found == [((5, 31, 9, 38), 1, 0.8)]


def test_whole_sightings_that_are_the_same_by_way_of_a_third_one_are_one_object():
    first, third = box(4, 20, 10, 26, score=0.9), box(8, 20, 14, 26, score=0.85)
    assert merge_three([first], [box(6, 20, 12, 26, score=0.8)], [third]) == [((4, 20, 10, 26), 1, 0.9)]
    assert len(merge_three([first], [], [third])) == 2


def test_an_object_that_only_one_tile_found_is_kept_even_if_cut():
    assert [one[0] for one in merge([], [box(5, 12, 9, 16)])] == [(5, 12, 9, 16)]
    assert [one[0] for one in merge([box(5, 2, 9, 4)], [box(15, 12, 19, 15)])] == [
        (5, 2, 9, 4),
        (15, 12, 19, 15),
    ]


def test_a_row_without_any_instance_gives_nothing():
    assert merge([], []) == []


def test_the_order_in_which_tiles_of_a_row_arrive_does_not_matter():
    rng = np.random.default_rng(5)
    left = [box(y, x, y + 5, x + 6, score=0.9) for y, x in rng.integers(0, 13, (12, 2))]
    right = [box(y, x + 12, y + 5, x + 18, score=0.9) for y, x in rng.integers(0, 13, (12, 2))]
    results = []
    for order in ([(LEFT, left), (RIGHT, right)], [(RIGHT, right), (LEFT, left)]):
        decided = OverlapDecision().add(Recogniser(GRID).add_row(order), {})
        results.append([(one.shape.box, one.shape.area, one.score, one.point) for one in decided])
    assert results[0] == results[1] and len(results[0]) > 3


def test_pixels_go_to_the_better_one_and_ties_to_the_upper_left_one():
    found = merge([box(0, 0, 4, 6, score=0.9), box(2, 0, 8, 6, score=0.9), box(0, 5, 4, 9, score=0.95)], [])
    assert found == [((0, 5, 4, 9), 1, 0.95), ((0, 0, 4, 5), 1, 0.9), ((4, 0, 8, 6), 1, 0.9)]


def shape_of(array, row=0, column=0):
    return make_shape([crop_mask(np.array(array, dtype=bool), row, column)])


def test_an_object_is_dropped_if_better_ones_cover_more_than_half_of_it():
    row = shape_of(np.ones((1, 10)))
    assert decide_pixels(row, [shape_of(np.ones((1, 5)))]).box == (0, 5, 1, 10)
    assert decide_pixels(row, [shape_of(np.ones((1, 6)))]) is None
    assert decide_pixels(row, [shape_of(np.ones((1, 10)))]) is None


def test_the_largest_part_stays_and_its_holes_stay_holes():
    ring = np.pad(np.ones((3, 3)), ((0, 0), (0, 4)))
    ring[1, 1] = 0
    ring[:2, 5:] = 1
    ring[2, 3] = 0
    part = decide_pixels(shape_of(ring), [])
    assert (part.area, part.box) == (8, (0, 0, 3, 3))
    diagonal = decide_pixels(shape_of(np.eye(3)), [])
    assert diagonal.box == (0, 0, 1, 1)  # corners don't connect; of equal parts the first


def test_objects_below_the_minimum_area_are_left_out():
    assert decide_pixels(shape_of(np.ones((2, 2))), [], minimum_area=5) is None
    assert decide_pixels(shape_of(np.ones((2, 2))), [], minimum_area=4).area == 4


def test_large_shapes_in_chunks_act_as_one_array(monkeypatch):
    monkeypatch.setattr(shapes, "CHUNK", 7)
    monkeypatch.setattr(shapes, "SINGLE_PIECE", 50)
    rng = np.random.default_rng(3)
    for _ in range(30):
        canvas = np.zeros((50, 50), dtype=bool)
        masks = []
        for _ in range(12):
            y, x = rng.integers(0, 30, 2)
            pixels = rng.random(rng.integers(1, 20, 2)) < 0.6
            pixels[0, 0] = True
            masks.append(PackedMask.of(crop_mask(pixels, y, x)))
            canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] |= pixels
        canvas_other = rng.random((50, 50)) < 0.3
        shape, other = unite(masks), shape_of(canvas_other)
        assert len(shape.pieces) > 4 and shape.area == canvas.sum()
        rest = subtract(shape, [other])
        np.testing.assert_array_equal(drawn(rest), canvas & ~canvas_other)
        labels, _ = ndimage.label(canvas)
        largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
        np.testing.assert_array_equal(drawn(largest_part(shape)), largest)
        rows, columns = np.nonzero(canvas)
        distances = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
        nearest = np.argmin(np.round(distances, 9))
        assert middle_point(shape) == (rows[nearest], columns[nearest])


def drawn(shape):
    canvas = np.zeros((50, 50), dtype=bool)
    for piece in shape.touching((0, 0, 50, 50)):
        assert not (canvas[piece.row : piece.box[2], piece.column : piece.box[3]] & piece.pixels).any()
        shapes.draw(canvas, (0, 0, 50, 50), piece, True)
    return canvas


def test_the_point_lies_on_the_object_even_if_its_middle_is_a_hole():
    ring = np.ones((5, 5))
    ring[1:4, 1:4] = 0
    assert middle_point(shape_of(ring, 10, 20)) == (10, 22)
    assert middle_point(shape_of(np.ones((5, 5)), 10, 20)) == (12, 22)


@pytest.mark.parametrize("gap", [0, 2])
def test_pairs_of_boxes_are_those_that_comparing_all_with_all_finds(gap):
    rng = np.random.default_rng(1)
    for count in (0, 1, 2, 60):
        corner = rng.integers(-50, 400, (count, 2))
        sides = np.where(rng.random((count, 2)) < 0.1, 300, rng.integers(1, 30, (count, 2)))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        expected = [
            [i, j]
            for i in range(count)
            for j in range(i + 1, count)
            if (np.maximum(boxes[i, :2], boxes[j, :2]) < np.minimum(boxes[i, 2:], boxes[j, 2:]) + gap).all()
        ]
        assert touching_pairs(boxes, gap=gap).tolist() == expected
