"""Sightings: what one tile or scene shows of an object, and when two of them are the same object.

A "tile" below is whatever shows a part of the ground: a tile of a scene, or a scene among others.

The rule is described with a picture in docs/merging.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from ann.data.outlines.masks import CroppedMask
from ann.inference.tiles import Tile, TileGrid
from maskrcnn.instances.instances import Certainty, Instance
from maskrcnn.instances.shapes import Shape, count_common, count_inside, draw, make_shape

# Where two tiles look at the same pixels, a network draws one object twice with an IoU well above this, and
# two objects of one tile have nearly no pixel in common; above one half at most one of them can match.
SAME_OBJECT_IOU = 0.5
# Networks draw a cut object too short, so where each of two sightings goes on beyond the other's tile, less
# agreement is enough, unless one of the tiles shows two objects there: those share less than APART_SHARE.
CONTINUED_IOU = 1 / 3
APART_SHARE = 0.25
# An object that goes on beyond a tile is often drawn up to a few pixels before the tile's border: the finest
# features of the network have a stride of 4 pixels. What ends nearer than that counts as cut.
BORDER_MARGIN = 4
# Two drawings of one outline differ by a pixel or two; a strip of that width beside an object is no object.
OUTLINE_TOLERANCE = 2

# Best first: higher score, then upper, then left, then lower class; then the tile and the detector's own
# order, so that the order never depends on when a tile arrived.
Rank = tuple[float | int, ...]

_Pair = tuple[int, int, int, int, int]  # two indices, common pixels, pixels of each that both tiles show


@dataclass(eq=False, kw_only=True)
class Sighting:
    """One instance as seen in one tile, and what is known of its neighbours so far.

    place: which tile that is, (row, column) of it or (number,) of a scene; scenes may lie on the same ground.
    """

    number: int  # unique, as they came
    tile: Tile
    place: tuple[int, ...]
    mask: Shape
    class_id: int
    score: float
    certainty: Certainty | None = None
    area: int
    rank: Rank
    whole: bool  # ends BORDER_MARGIN or more before each border of the tile that lies inside of the scene
    watchers: frozenset[tuple[int, ...]]  # places of other tiles that show all of a cut sighting, uncut
    same: set[int] = field(default_factory=set)  # numbers of sightings of the same object
    overlapping: set[int] = field(default_factory=set)  # numbers of sightings with common pixels
    partner_tiles: set[tuple[int, ...]] = field(default_factory=set)  # places of `same`
    goes_on: bool = False  # a sighting of the same object goes on beyond this one's tile
    beside: np.ndarray | None = None  # bool, as the mask's box: pixels beside what the watchers saw

    @property
    def is_whole(self) -> bool:
        """Clear of the tile's inner borders, and no other tile saw that the object goes on behind them."""
        return self.whole and not self.goes_on

    @property
    def bottom(self) -> int:
        """First scene row below the mask."""
        return self.mask.box[2]

    @property
    def is_sliver(self) -> bool:
        """A cut sighting of what another tile, which sees all of it, did not draw but something beside it."""
        if not self.watchers or self.watchers & self.partner_tiles or self.beside is None:
            return False
        (mask,) = self.mask
        return 2 * np.count_nonzero(self.beside & mask.pixels) >= self.area


def make_sighting(instance: Instance, tile: Tile, index: int, number: int, grid: TileGrid) -> Sighting:
    """An instance as a sighting. index: its place among those of the tile."""
    mask = instance.mask
    whole = _inside(mask.box, tile, grid)
    shape = make_shape([mask])
    assert shape is not None
    return Sighting(
        number=number,
        tile=tile,
        place=(tile.row, tile.column),
        mask=shape,
        class_id=instance.class_id,
        score=instance.score,
        certainty=instance.certainty,
        area=shape.area,
        rank=(-instance.score, mask.row, mask.column, instance.class_id, tile.row, tile.column, index),
        whole=whole,
        watchers=frozenset() if whole else _watchers(mask.box, tile, grid),
    )


def recognise(
    sightings: Sequence[Sighting], masks: Sequence[Iterable[CroppedMask]], pairs: np.ndarray
) -> list[tuple[Sighting, Sighting]]:
    """Enter into the sightings what they are to each other; returns the pairs that show the same object.

    masks: theirs, as pieces that can be gone through again and again; pairs: (n, 2) indices of sightings that
    are near each other, all of any two tiles in one call. Class does not matter: one object that two
    tiles gave two classes is still one.
    """
    same: list[tuple[Sighting, Sighting]] = []
    apart: list[_Pair] = []
    continued: list[tuple[int, int]] = []
    near: list[tuple[int, int]] = []
    for first, second, meet, one_tile, all_one, all_two in _facts(sightings, pairs):
        one, two = sightings[first], sightings[second]
        common = count_common(masks[first], masks[second]) if meet else 0
        if common:
            one.overlapping.add(two.number)
            two.overlapping.add(one.number)
        if one_tile:
            continue
        if common:  # compare what both tiles show of each; common pixels always lie there
            zone_one = one.area if all_one else count_inside(masks[first], two.tile.box)
            zone_two = two.area if all_two else count_inside(masks[second], one.tile.box)
            seen_by_both = zone_one + zone_two - common
            if common > SAME_OBJECT_IOU * seen_by_both:
                pair_up(one, two)
                same.append((one, two))
                continue
            if common >= CONTINUED_IOU * seen_by_both and _continue_each_other(one, two):
                continued.append((first, second))
                continue
            apart.append((first, second, common, zone_one, zone_two))
        if two.place in one.watchers or one.place in two.watchers:
            near.append((first, second))
    same += _match_the_rest(sightings, apart)
    same += _match_continued(sightings, masks, continued)
    for first, second in near:
        one, two = sightings[first], sightings[second]
        if two.number not in one.same:
            _look_beside(one, two, masks[second])
            _look_beside(two, one, masks[first])
    return same


def _facts(
    sightings: Sequence[Sighting], pairs: np.ndarray
) -> Iterator[tuple[int, int, bool, bool, bool, bool]]:
    """What boxes alone say of pairs, for all at once; pairs that can't matter to each other are left out.

    Gives the indices of two sightings; do their boxes share pixels; are they of one tile; does the tile of
    the second show all of the first, and the tile of the first all of the second.
    """
    if not len(pairs):
        return iter(())
    boxes = np.array([sighting.mask.box for sighting in sightings])
    tiles = np.array([sighting.tile.box for sighting in sightings])
    numbers: dict[tuple[int, ...], int] = {}
    places = np.array([numbers.setdefault(sighting.place, len(numbers)) for sighting in sightings])
    whole = np.array([sighting.whole for sighting in sightings])
    first, second = pairs.T
    meet = (boxes[first, :2] < boxes[second, 2:]).all(1) & (boxes[second, :2] < boxes[first, 2:]).all(1)
    one_tile = places[first] == places[second]
    all_one, all_two = (
        (boxes[here, :2] >= tiles[there, :2]).all(1) & (boxes[here, 2:] <= tiles[there, 2:]).all(1)
        for here, there in ((first, second), (second, first))
    )
    relevant = meet | (~one_tile & ((~whole[first] & all_one) | (~whole[second] & all_two)))
    columns = (first, second, meet, one_tile, all_one, all_two)
    return zip(*(column[relevant].tolist() for column in columns), strict=True)


def _match_continued(
    sightings: Sequence[Sighting], masks: Sequence[Iterable[CroppedMask]], pairs: Sequence[tuple[int, int]]
) -> list[tuple[Sighting, Sighting]]:
    """Pair up sightings that go on beyond each other's tile, but none that spans two objects of a tile."""
    index_of = {sighting.number: index for index, sighting in enumerate(sightings)}
    like: dict[int, set[int]] = {}  # index -> indices of what it may be the same as
    for first, second in pairs:
        for one, two in ((first, second), (second, first)):
            strong = {index_of[number] for number in sightings[one].same if number in index_of}
            like.setdefault(one, strong).add(two)

    def spans_two(one: int, two: int) -> bool:
        return any(
            count_common(masks[two], masks[other])
            < APART_SHARE * min(sightings[two].area, sightings[other].area)
            for other in like[one] - {two}
            if sightings[other].place == sightings[two].place
        )

    matched = []
    for first, second in pairs:
        if not spans_two(first, second) and not spans_two(second, first):
            matched.append((sightings[first], sightings[second]))
    for one, two in matched:
        pair_up(one, two)
    return matched


def _continue_each_other(one: Sighting, two: Sighting) -> bool:
    return _goes_beyond(one, two.tile) and _goes_beyond(two, one.tile)


def _goes_beyond(sighting: Sighting, tile: Tile) -> bool:
    """True where a mask lies outside of another tile by more than outlines differ."""
    y1, x1, y2, x2 = sighting.mask.box
    top, left, bottom, right = tile.box
    return max(top - y1, left - x1, y2 - bottom, x2 - right) > OUTLINE_TOLERANCE


def _match_the_rest(sightings: Sequence[Sighting], apart: Sequence[_Pair]) -> list[tuple[Sighting, Sighting]]:
    """Pair up sightings that two tiles drew very differently.

    Each tile shows what the other does, so where neither sighting has a partner in the other's tile, and one
    covers half or more of the other there, they are the same; the most alike are paired first, one to one.
    """
    rest = []
    for first, second, common, zone_one, zone_two in apart:
        one, two = sightings[first], sightings[second]
        if 2 * common < min(zone_one, zone_two):
            continue
        if _lack_partners(one, two):
            ranks = sorted((one.rank, two.rank))
            rest.append((-common / (zone_one + zone_two - common), ranks, first, second))
    matched = []
    for *_, first, second in sorted(rest):
        one, two = sightings[first], sightings[second]
        if _lack_partners(one, two):
            pair_up(one, two)
            matched.append((one, two))
    return matched


def pair_up(one: Sighting, two: Sighting) -> None:
    """Enter that two sightings are the same object."""
    one.same.add(two.number)
    two.same.add(one.number)
    one.partner_tiles.add(two.place)
    two.partner_tiles.add(one.place)
    one.goes_on |= _goes_beyond(two, one.tile)
    two.goes_on |= _goes_beyond(one, two.tile)


def _lack_partners(one: Sighting, two: Sighting) -> bool:
    return two.place not in one.partner_tiles and one.place not in two.partner_tiles


def _look_beside(cut: Sighting, seen: Sighting, seen_mask: Iterable[CroppedMask]) -> None:
    """Note which pixels of a cut sighting lie in or beside one of a tile that sees more of the place."""
    if seen.place not in cut.watchers or cut.watchers & cut.partner_tiles or len(cut.mask.pieces) > 1:
        return  # also where it is too large for a strip
    y1, x1, y2, x2 = cut.mask.box
    reach = OUTLINE_TOLERANCE
    box = (y1 - reach, x1 - reach, y2 + reach, x2 + reach)
    canvas = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
    for piece in seen_mask:
        draw(canvas, box, piece, True)
    near = ndimage.maximum_filter(canvas, size=2 * reach + 1, mode="constant")[reach:-reach, reach:-reach]
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
