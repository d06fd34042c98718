"""Sightings: what one tile shows of an object, and when two of them are the same object.

The rule is described with a picture in docs/merging.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from maskrcnn.data.masks import CroppedMask
from maskrcnn.detection.instances import Instance
from maskrcnn.detection.shapes import PackedMask, count_common, count_inside, draw
from maskrcnn.detection.tiles import Tile, TileGrid

# Where two tiles look at the same pixels, a network draws one object twice with an IoU well above this, and
# two objects of one tile have nearly no pixel in common; above one half at most one of them can match.
SAME_OBJECT_IOU = 0.5
# An object that goes on beyond a tile is often drawn up to a few pixels before the tile's border: the finest
# features of the network have a stride of 4 pixels. What ends nearer than that counts as cut.
BORDER_MARGIN = 4
# Two drawings of one outline differ by a pixel or two; a strip of that width beside an object is no object.
OUTLINE_TOLERANCE = 2

# Best first: higher score, then upper, then left, then lower class; then the tile and the detector's own
# order, so that the order never depends on when a tile arrived.
Rank = tuple[float, int, int, int, int, int, int]


@dataclass(eq=False, kw_only=True)
class Sighting:
    """One instance as seen in one tile, and what is known of its neighbours so far."""

    number: int  # unique, as they came
    tile: Tile
    mask: PackedMask
    class_id: int
    score: float
    area: int
    rank: Rank
    whole: bool  # ends BORDER_MARGIN or more before each border of the tile that lies inside of the scene
    watchers: frozenset[
        tuple[int, int]
    ]  # (row, column) of other tiles that show all of a cut sighting, uncut
    same: set[int] = field(default_factory=set)  # numbers of sightings of the same object
    overlapping: set[int] = field(default_factory=set)  # numbers of sightings with common pixels
    recognised_by: set[tuple[int, int]] = field(
        default_factory=set
    )  # watchers with a sighting of the same object
    beside: np.ndarray | None = None  # bool, as the mask's box: pixels beside what the watchers saw

    @property
    def bottom(self) -> int:
        """First scene row below the mask."""
        return self.mask.box[2]

    @property
    def is_sliver(self) -> bool:
        """A cut sighting of what another tile, which sees all of it, did not draw but something beside it."""
        if not self.watchers or self.recognised_by or self.beside is None:
            return False
        pixels = self.mask.unpack().pixels
        return 2 * np.count_nonzero(self.beside & pixels) >= self.area


def make_sighting(instance: Instance, tile: Tile, index: int, number: int, grid: TileGrid) -> Sighting:
    """An instance as a sighting. index: its place among those of the tile."""
    mask = instance.mask
    whole = _inside(mask.box, tile, grid)
    return Sighting(
        number=number,
        tile=tile,
        mask=PackedMask.of(mask),
        class_id=instance.class_id,
        score=instance.score,
        area=mask.area,
        rank=(-instance.score, mask.row, mask.column, instance.class_id, tile.row, tile.column, index),
        whole=whole,
        watchers=frozenset() if whole else _watchers(mask.box, tile, grid),
    )


def compare(one: Sighting, two: Sighting, masks: Sequence[CroppedMask]) -> None:
    """Enter into two sightings what they are to each other. masks: theirs, unpacked."""
    common = count_common(*masks)
    tiles_differ = one.tile != two.tile
    if common:
        one.overlapping.add(two.number)
        two.overlapping.add(one.number)
        if tiles_differ and _is_same(one, two, masks, common):
            one.same.add(two.number)
            two.same.add(one.number)
            for here, there in ((one, two), (two, one)):
                place = (there.tile.row, there.tile.column)
                if place in here.watchers:
                    here.recognised_by.add(place)
    if tiles_differ and two.number not in one.same:
        _look_beside(one, two, masks[1])
        _look_beside(two, one, masks[0])


def _is_same(one: Sighting, two: Sighting, masks: Sequence[CroppedMask], common: int) -> bool:
    """Class does not matter: one object that two tiles gave two classes is still one."""
    seen_by_both = (
        count_inside(masks[0], two.tile.box) + count_inside(masks[1], one.tile.box) - common
    )  # union within the zone that both tiles show; common pixels always lie in it
    if common < SAME_OBJECT_IOU * seen_by_both:
        return False
    # A whole object is all there is: what lies mostly outside of it is something else.
    if one.whole and 2 * common < two.area:
        return False
    return not (two.whole and 2 * common < one.area)


def _look_beside(cut: Sighting, seen: Sighting, seen_mask: CroppedMask) -> None:
    """Note which pixels of a cut sighting lie in or beside one of a tile that sees more of the place."""
    if (seen.tile.row, seen.tile.column) not in cut.watchers or cut.recognised_by:
        return
    y1, x1, y2, x2 = cut.mask.box
    reach = OUTLINE_TOLERANCE
    box = (y1 - reach, x1 - reach, y2 + reach, x2 + reach)
    canvas = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
    draw(canvas, box, seen_mask, True)
    side = 2 * reach + 1
    near = ndimage.maximum_filter(canvas, size=side, mode="constant")[reach:-reach, reach:-reach]
    cut.beside = near if cut.beside is None else cut.beside | near


def _inside(box: Sequence[int], tile: Tile, grid: TileGrid) -> bool:
    """True where a box keeps BORDER_MARGIN to each border of the tile that lies inside of the scene."""
    y1, x1, y2, x2 = box
    top, left, bottom, right = tile.box
    return (
        (top == 0 or y1 >= top + BORDER_MARGIN)
        and (left == 0 or x1 >= left + BORDER_MARGIN)
        and (bottom == grid.scene_height or y2 <= bottom - BORDER_MARGIN)
        and (right == grid.scene_width or x2 <= right - BORDER_MARGIN)
    )


def _watchers(box: Sequence[int], own: Tile, grid: TileGrid) -> frozenset[tuple[int, int]]:
    rows = _starts_around(box[0], box[2], grid.row_starts, grid.tile_height, grid.scene_height)
    columns = _starts_around(box[1], box[3], grid.column_starts, grid.tile_width, grid.scene_width)
    return frozenset(
        (row, column) for row in rows for column in columns if (row, column) != (own.row, own.column)
    )


def _starts_around(first: int, end: int, starts: Sequence[int], side: int, scene_side: int) -> list[int]:
    return [
        start
        for start in starts[max(0, bisect_left(starts, end - side)) : bisect_right(starts, first)]
        if (start == 0 or first >= start + BORDER_MARGIN)
        and (start + side == scene_side or end <= start + side - BORDER_MARGIN)
    ]
