"""Merge what neighbouring scenes show: the rule of the seams between tiles, for seams between scenes.

A scene is to its neighbours what a tile is to the tiles beside it, so sightings, objects and pixels are found
by `sightings`, `merge` and `overlaps`, on a grid of pixels that all scenes of a group share: that of the
finest of them. Where grids are equal up to whole pixels nothing is rounded; other masks are resampled to it,
each pixel after the one that its centre lies in. Scenes that touch without overlap show no pixel twice; there
an object goes on where two cut sightings meet at the border. Described in docs/merging.md.

Memory is that of the objects in ground that a neighbour shows too, one bit per pixel of their boxes, until
all scenes of the group are through.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

import numpy as np
from scipy import ndimage

from ann.data.outlines.masks import CroppedMask, common_box, crop_mask
from ann.data.pixels.windows import Window
from maskrcnn.instances.merge import resolve
from maskrcnn.instances.overlaps import OverlapDecision
from maskrcnn.instances.pairs import touching_pairs
from maskrcnn.instances.shapes import (
    Box,
    Shape,
    count_common,
    count_inside,
    draw,
    find,
    join,
    make_shape,
    unite,
)
from maskrcnn.instances.sightings import (
    APART_SHARE,
    BORDER_MARGIN,
    OUTLINE_TOLERANCE,
    SAME_OBJECT_IOU,
    Sighting,
    pair_up,
    recognise,
)

# Pixels; a centre that lies on the border of two pixels belongs to one and the same of them both ways.
TIE = 1e-6
# How near to a border that no scene shows both sides of an object comes that goes on there, pixels.
BORDER_REACH = OUTLINE_TOLERANCE + 1
# The sides of a box, by their places in (y1, x1, y2, x2).
TOP, LEFT, BOTTOM, RIGHT = range(4)


class Ground(Protocol):
    """Where a scene's pixels lie: north-west corner, number and size in map units."""

    north: float
    west: float
    rows: int
    columns: int
    row_size: float
    column_size: float


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """Pixels of one size from a corner on, in all directions."""

    north: float
    west: float
    row_size: float
    column_size: float

    def box(self, ground: Ground) -> Box:
        """(y1, x1, y2, x2) of a scene: the pixels whose centres it holds, one a side at least."""
        north, west = self.north - ground.north, ground.west - self.west
        top = _first(north / self.row_size)
        left = _first(west / self.column_size)
        bottom = _first((north + ground.rows * ground.row_size) / self.row_size)
        right = _first((west + ground.columns * ground.column_size) / self.column_size)
        return top, left, max(bottom, top + 1), max(right, left + 1)


def _first(edge: float) -> int:
    """The first pixel with its centre behind an edge, given in pixels; a centre on it lies before it."""
    return math.floor(edge + 0.5 + TIE)


def finest_grid(scenes: Sequence[Ground]) -> PixelGrid:
    """The pixels of the finest scene, from the north-west corner of all of them on (to whole pixels)."""
    finest = min(scenes, key=lambda one: (one.row_size * one.column_size, -one.north, one.west))
    up = math.ceil((max(one.north for one in scenes) - finest.north) / finest.row_size - TIE)
    left = math.ceil((finest.west - min(one.west for one in scenes)) / finest.column_size - TIE)
    return PixelGrid(
        north=finest.north + up * finest.row_size,
        west=finest.west - left * finest.column_size,
        row_size=finest.row_size,
        column_size=finest.column_size,
    )


def neighbours(scenes: Sequence[Ground]) -> list[tuple[int, ...]]:
    """For each scene the numbers of those that it overlaps or touches; not compared all with all."""
    if len(scenes) < 2:
        return [() for _ in scenes]
    grid = finest_grid(scenes)
    return [tuple(sorted(numbers)) for numbers in _beside([grid.box(scene) for scene in scenes])]


def _beside(boxes: Sequence[Box]) -> list[list[int]]:
    """For each box the numbers of those that it overlaps or touches."""
    found: list[list[int]] = [[] for _ in boxes]
    for one, two in touching_pairs(np.array(boxes), gap=2).tolist():
        found[one].append(two)
        found[two].append(one)
    return found


def groups(neighbours: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Scenes that hang together by way of their neighbours, in the order of their first members."""
    parents = list(range(len(neighbours)))
    for one, others in enumerate(neighbours):
        for two in others:
            join(parents, one, two)
    members: dict[int, list[int]] = defaultdict(list)
    for one in range(len(neighbours)):
        members[find(parents, one)].append(one)
    return [tuple(numbers) for numbers in members.values()]


def shared_boxes(scene: Ground, others: Sequence[Ground]) -> list[Box]:
    """Where other scenes look too, in pixels of a scene; wider by what is drawn short of a border."""
    own = own_grid(scene)
    reach = BORDER_MARGIN + 1
    boxes = [own.box(one) for one in others]
    return [(y1 - reach, x1 - reach, y2 + reach, x2 + reach) for y1, x1, y2, x2 in boxes]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedInstance:
    """An object that one scene shows in ground where others look too. id: in its scene; shape: its pixels."""

    scene: int
    id: int
    class_id: int
    score: float
    shape: Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedInstance:
    """An object of a group of scenes, in the group's pixels. scene, id: the best of its sightings.

    point: (row, column) of the pixel nearest to its middle.
    """

    scene: int
    id: int
    class_id: int
    score: float
    shape: Shape
    point: tuple[int, int]


def merge_scenes(
    scenes: Mapping[int, Ground], grid: PixelGrid, found: Sequence[SharedInstance], minimum_area: int = 1
) -> list[MergedInstance]:
    """The objects of a group of scenes, each once, without common pixels, the best first.

    scenes: those of the group by number; grid: their common pixels, see `finest_grid`. The result does not
    depend on the order of scenes unless two of them show the same ground with equal scores.
    """
    boxes = {number: grid.box(scene) for number, scene in scenes.items()}
    frames = _Frames(boxes)
    origins = []
    for one in sorted(found, key=lambda one: (boxes[one.scene], one.scene, one.id)):
        shape = into_group(one.shape, scenes[one.scene], grid)
        if shape is not None:
            origins.append(replace(one, shape=shape))
    origins = _with_parts_joined(origins, frames)
    sightings = [_make_sighting(one, number, frames) for number, one in enumerate(origins)]
    _join_at_borders(sightings, frames)
    pairs = touching_pairs([one.mask.box for one in sightings], gap=OUTLINE_TOLERANCE)
    parents = list(range(len(sightings)))
    recognise(sightings, [sighting.mask for sighting in sightings], pairs)
    for sighting in sightings:
        for other in sighting.same:
            join(parents, sighting.number, other)
    together: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        together[find(parents, sighting.number)].append(sighting)
    candidates = [candidate for group in together.values() for candidate in resolve(group)]
    return [
        MergedInstance(
            scene=origins[one.best].scene,
            id=origins[one.best].id,
            class_id=one.class_id,
            score=one.score,
            shape=one.shape,
            point=one.point,
        )
        for one in OverlapDecision(minimum_area).add(candidates, {})
    ]


def shown_in(
    scenes: Mapping[int, Ground], grid: PixelGrid, objects: Sequence[MergedInstance]
) -> dict[int, list[tuple[int, Shape]]]:
    """What each scene of a group shows of the objects: (index, its part in pixels of the scene)."""
    numbers = list(scenes)
    boxes = [grid.box(scenes[number]) for number in numbers] + [one.shape.box for one in objects]
    found: dict[int, list[tuple[int, Shape]]] = {number: [] for number in numbers}
    for one, two in touching_pairs(np.array(boxes)).tolist():
        if one < len(numbers) <= two:
            scene = scenes[numbers[one]]
            part = into_scene(objects[two - len(numbers)].shape, grid, scene)
            if part is not None:
                found[numbers[one]].append((two - len(numbers), part))
    return found


def own_grid(scene: Ground) -> PixelGrid:
    """The pixels of a scene."""
    return PixelGrid(
        north=scene.north, west=scene.west, row_size=scene.row_size, column_size=scene.column_size
    )


def into_group(shape: Shape, scene: Ground, grid: PixelGrid) -> Shape | None:
    """A shape of a scene in the pixels of its group; None where it holds the centre of none.

    Each pixel is what the one is that its centre lies in; a centre on a border lies in the upper or left one.
    """
    return _resample(shape, own_grid(scene), grid, grid.box(scene), -TIE)


def into_scene(shape: Shape, grid: PixelGrid, scene: Ground) -> Shape | None:
    """What a scene shows of a shape of its group; None: nothing. After `into_group` it gives the same shape.

    A centre on a border lies in the lower or right pixel here.
    """
    return _resample(shape, grid, own_grid(scene), (0, 0, scene.rows, scene.columns), TIE)


def _resample(shape: Shape, own: PixelGrid, other: PixelGrid, frame: Box, tie: float) -> Shape | None:
    rows = _Axis((own.north - other.north) / own.row_size, other.row_size / own.row_size, tie)
    columns = _Axis((other.west - own.west) / own.column_size, other.column_size / own.column_size, tie)

    def pieces() -> Iterator[CroppedMask]:
        for piece in shape:
            y1, x1, y2, x2 = piece.box
            y, x = rows.pixels(y1, y2, frame[0], frame[2]), columns.pixels(x1, x2, frame[1], frame[3])
            if len(y[0]) and len(x[0]):
                mask = crop_mask(piece.pixels[np.ix_(y[0] - y1, x[0] - x1)], y[1], x[1])
                if mask is not None:
                    yield mask

    return make_shape(pieces())


@dataclass(frozen=True)
class _Axis:
    """From pixel numbers of one grid to those of another along an axis: offset + step * (number + 0.5)."""

    offset: float
    step: float
    tie: float

    def pixels(self, start: int, end: int, first: int, last: int) -> tuple[np.ndarray, int]:
        """Which of the own pixels `start` to `end` the centres of the other's lie in, and the first of those.

        Only the others' `first` to `last` are asked.
        """
        first = max(first, math.floor((start - self.offset) / self.step) - 1)
        last = min(last, math.ceil((end - self.offset) / self.step) + 1)
        own = np.floor(self.offset + self.step * (np.arange(first, last) + 0.5) + self.tie).astype(np.int64)
        inside = np.flatnonzero((own >= start) & (own < end))
        return (own[inside], first + int(inside[0])) if len(inside) else (own[:0], first)


class _Frames:
    """The scenes of a group in common pixels: who lies beside whom, and what borders have ground behind."""

    def __init__(self, boxes: Mapping[int, Box]):
        self.boxes = boxes
        numbers = list(boxes)
        self.beside = {
            number: [numbers[other] for other in others]
            for number, others in zip(numbers, _beside(list(boxes.values())), strict=True)
        }

    def cut_sides(self, box: Box, scene: int) -> list[int]:
        """Borders of a scene that a box comes near to and that another scene shows the other side of."""
        own = self.boxes[scene]
        return [
            side
            for side in (TOP, LEFT, BOTTOM, RIGHT)
            if abs(box[side] - own[side]) < BORDER_MARGIN
            and any(common_box(_strip(own, side, -1, box), self.boxes[other]) for other in self.beside[scene])
        ]

    def watchers(self, box: Box, scene: int) -> frozenset[tuple[int, ...]]:
        """Other scenes that show all of a box, away from their own borders."""
        return frozenset(
            (other,)
            for other in self.beside[scene]
            if _holds(self.boxes[other], box) and not self.cut_sides(box, other)
        )


def _holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def _strip(frame: Box, side: int, depth: int, along: Box) -> Box:
    """The part of the box `along` beside a border of `frame`: `depth` pixels inside, outside if negative."""
    strip = list(along)
    inward = 1 if side < 2 else -1
    ends = sorted((frame[side], frame[side] + inward * depth))
    strip[side % 2], strip[side % 2 + 2] = ends
    y1, x1, y2, x2 = strip
    return y1, x1, y2, x2


def _make_sighting(one: SharedInstance, number: int, frames: _Frames) -> Sighting:
    shape = one.shape
    y1, x1, y2, x2 = frames.boxes[one.scene]
    whole = not frames.cut_sides(shape.box, one.scene)
    return Sighting(
        number=number,
        tile=Window(row=y1, column=x1, height=y2 - y1, width=x2 - x1),
        place=(one.scene,),
        mask=shape,
        class_id=one.class_id,
        score=one.score,
        area=shape.area,
        rank=(-one.score, *shape.box[:2], one.class_id, y1, x1, number),
        whole=whole,
        watchers=frozenset() if whole else frames.watchers(shape.box, one.scene),
    )


def _with_parts_joined(found: list[SharedInstance], frames: _Frames) -> list[SharedInstance]:
    """Make one of what a scene's border cuts into parts, where another scene shows that they hang together.

    A scene can't tell by itself: both legs of a U whose lower side it does not show are objects to it. Parts
    are cut ones, further apart than outlines differ (terraced houses are no parts), that lie for one half or
    more in one object of another scene and together agree with it in more than half of the common ground.
    """
    while True:
        cut = [bool(frames.cut_sides(one.shape.box, one.scene)) for one in found]
        inside: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for first, second in touching_pairs(np.array([one.shape.box for one in found])).tolist():
            if found[first].scene == found[second].scene or not (cut[first] or cut[second]):
                continue
            common = count_common(found[first].shape, found[second].shape)
            for whole, part in ((first, second), (second, first)):
                if common and cut[part]:
                    zone = count_inside(found[part].shape, frames.boxes[found[whole].scene])
                    if 2 * common >= zone:
                        inside[whole, found[part].scene].append((part, common, zone))
        parents = list(range(len(found)))
        for (whole, scene), parts in inside.items():
            if len(parts) < 2:
                continue
            common = sum(one[1] for one in parts)
            zone = count_inside(found[whole].shape, frames.boxes[scene])
            shapes = [found[part].shape for part, *_ in parts]
            if common > SAME_OBJECT_IOU * (zone + sum(one[2] for one in parts) - common) and not any(
                _are_near(one, two) for one, two in combinations(shapes, 2)
            ):
                for part, *_ in parts[1:]:
                    join(parents, parts[0][0], part)
        together: dict[int, list[SharedInstance]] = defaultdict(list)
        for index, one in enumerate(found):
            together[find(parents, index)].append(one)
        if len(together) == len(found):
            return found
        found = [_united(parts) for parts in together.values()]


def _united(parts: Sequence[SharedInstance]) -> SharedInstance:
    if len(parts) == 1:
        return parts[0]
    best = min(parts, key=lambda one: (-one.score, one.shape.box))
    return replace(best, shape=unite([piece for one in parts for piece in one.shape.pieces]))


def _are_near(one: Shape, two: Shape) -> bool:
    """Whether two shapes come as near to each other as two drawings of one outline differ."""
    reach = OUTLINE_TOLERANCE
    y1, x1, y2, x2 = one.box
    common = common_box((y1 - reach, x1 - reach, y2 + reach, x2 + reach), two.box)
    if common is None:
        return False
    y1, x1, y2, x2 = common
    box = (y1 - reach, x1 - reach, y2 + reach, x2 + reach)
    near = ndimage.maximum_filter(_canvas(one, box), size=2 * reach + 1, mode="constant")
    return bool((near & _canvas(two, box)).any())


def _join_at_borders(sightings: Sequence[Sighting], frames: _Frames) -> None:
    """Pair up cut sightings of scenes that touch without overlap, where both come to the same place.

    That is where they touch over the border along a quarter or more of what the smaller one has there; or,
    since networks stop short of a border, where both come within OUTLINE_TOLERANCE of it at places that agree
    in more than half. Those are drawn to the border. A place that a third scene shows is left to that.
    """
    pairs = touching_pairs([one.mask.box for one in sightings], gap=2 * BORDER_REACH)
    short: list[tuple[Sighting, Sighting, int, int, np.ndarray]] = []
    for first, second in pairs.tolist():
        one, two = sightings[first], sightings[second]
        if one.place == two.place or common_box(one.tile.box, two.tile.box):
            continue
        for side in frames.cut_sides(one.mask.box, one.place[0]):
            opposite = (side + 2) % 4
            if one.tile.box[side] != two.tile.box[opposite] or _seen_by_third(one, two, side, frames):
                continue
            _, common, smaller, _ = _compare_along(one, two, side, 1)
            if common:
                if common >= APART_SHARE * smaller:
                    pair_up(one, two)
                continue
            (start, both), common, _, either = _compare_along(one, two, side, BORDER_REACH)
            if common > SAME_OBJECT_IOU * either:
                pair_up(one, two)
                short.append((one, two, side, start, both))
    for one, two, side, start, both in short:
        _draw_to_border(one, side, start, both)
        _draw_to_border(two, (side + 2) % 4, start, both)


def _compare_along(
    one: Sighting, two: Sighting, side: int, depth: int
) -> tuple[tuple[int, np.ndarray], int, int, int]:
    """Places along a border that two sightings come to, from either side, within `depth` pixels.

    Returns the common ones as (start, (n,) bool), and how many are common, the smaller one's, and either's.
    """
    (at, one_end, here), (other, two_end, there) = (
        _profile(one, side, depth),
        _profile(two, (side + 2) % 4, depth),
    )
    start, end = max(at, other), min(one_end, two_end)
    if start >= end:
        return (start, np.zeros(0, dtype=bool)), 0, 0, 0
    both = here[start - at : end - at] & there[start - other : end - other]
    common, counts = int(both.sum()), (int(here.sum()), int(there.sum()))
    return (start, both), common, min(counts), sum(counts) - common


def _profile(sighting: Sighting, side: int, depth: int) -> tuple[int, int, np.ndarray]:
    """Where along a border a sighting comes near to it: start, end, (end - start,) bool."""
    box = sighting.mask.box
    along = 1 - side % 2
    canvas = _canvas(sighting.mask, _strip(sighting.tile.box, side, depth, box))
    return box[along], box[along + 2], canvas.any(axis=side % 2)


def _canvas(shape: Shape, box: Box) -> np.ndarray:
    """The pixels of a shape in a box, bool."""
    canvas = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
    for piece in shape.touching(box):
        draw(canvas, box, piece, True)
    return canvas


def _seen_by_third(one: Sighting, two: Sighting, side: int, frames: _Frames) -> bool:
    """Whether another scene shows the place where two scenes meet, from both sides."""
    along, opposite = 1 - side % 2, (side + 2) % 4
    place = list(one.mask.box)
    place[along] = max(one.mask.box[along], two.mask.box[along])
    place[along + 2] = min(one.mask.box[along + 2], two.mask.box[along + 2])
    y1, x1, y2, x2 = place
    here, there = (
        _strip(tile.box, border, BORDER_MARGIN, (y1, x1, y2, x2))
        for tile, border in ((one.tile, side), (two.tile, opposite))
    )
    third = set(frames.beside[one.place[0]]) & set(frames.beside[two.place[0]])
    return any(_holds(frames.boxes[number], here) and _holds(frames.boxes[number], there) for number in third)


def _draw_to_border(sighting: Sighting, side: int, start: int, places: np.ndarray) -> None:
    """Add what a sighting lacks between its pixels and a border.

    places: (n,) bool, from `start` on along the border.
    """
    along = list(sighting.mask.box)
    along[1 - side % 2], along[3 - side % 2] = start, start + len(places)
    y1, x1, y2, x2 = along
    strip = _strip(sighting.tile.box, side, BORDER_REACH, (y1, x1, y2, x2))
    canvas = _canvas(sighting.mask, strip)
    lines = canvas if side % 2 == TOP else canvas.T  # views: lines along the border
    lines = lines if side in (TOP, LEFT) else lines[::-1]  # the one at the border first
    lines |= (np.arange(len(lines))[:, None] < np.argmax(lines, axis=0)) & places
    mask = crop_mask(canvas, strip[0], strip[1])
    added = make_shape([mask]) if mask is not None else None
    if added is not None:
        sighting.mask = unite([*sighting.mask.pieces, *added.pieces])
        sighting.area = sighting.mask.area
