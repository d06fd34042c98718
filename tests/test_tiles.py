"""Tiles cover every scene, keep their size and overlap."""

from __future__ import annotations

import numpy as np
import pytest

from ann.inference.tiles import Tile, cut_tiles


def tiles_of(grid):
    return [tile for index in range(len(grid.row_starts)) for tile in grid.row(index)]


def test_tiles_go_row_by_row_and_the_last_ones_are_moved_back_inside():
    grid = cut_tiles(10, 21, (6, 8), 2)
    assert grid.row_starts == (0, 4)
    assert grid.column_starts == (0, 6, 12, 13)
    assert len(grid) == 8
    assert grid.row(1)[0] == Tile(row=4, column=0, height=6, width=8)
    assert [grid.next_start(0), grid.next_start(1)] == [4, 10]


def test_a_scene_smaller_than_a_tile_gives_one_tile_of_the_scenes_size():
    assert tiles_of(cut_tiles(5, 7, (64, 64), 8)) == [Tile(row=0, column=0, height=5, width=7)]
    assert tiles_of(cut_tiles(5, 100, (64, 64), 8)) == [
        Tile(row=0, column=0, height=5, width=64),
        Tile(row=0, column=36, height=5, width=64),
    ]


def test_a_scene_as_large_as_a_tile_gives_one_tile():
    assert len(cut_tiles(64, 64, (64, 64), 63)) == 1


def test_all_edge_neighbours_lie_together_in_some_tile_whatever_the_sizes():
    for height, width, tile, overlap in [
        (1, 1, (2, 2), 1),
        (9, 14, (4, 3), 1),
        (30, 17, (8, 8), 7),
        (23, 23, (5, 9), 2),
    ]:
        grid = cut_tiles(height, width, tile, overlap)
        below = np.zeros((height, width), dtype=int)
        beside = np.zeros((height, width), dtype=int)
        for one in tiles_of(grid):
            y1, x1, y2, x2 = one.box
            assert 0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width
            below[y1 : y2 - 1, x1:x2] += 1
            beside[y1:y2, x1 : x2 - 1] += 1
        assert below[:-1].all() and beside[:, :-1].all()
        assert len(set(tiles_of(grid))) == len(grid)


@pytest.mark.parametrize("overlap", [0, -3, 6, 9])
def test_an_overlap_that_does_not_fit_the_tile_is_an_error_that_names_both(overlap):
    with pytest.raises(ValueError, match=rf"1 to 5 pixels .* 6 x 8\), received {overlap}"):
        cut_tiles(100, 100, (6, 8), overlap)


def test_an_empty_scene_is_an_error():
    with pytest.raises(ValueError, match="0 x 5"):
        cut_tiles(0, 5, (6, 8), 2)
