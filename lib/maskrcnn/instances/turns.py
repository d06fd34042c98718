"""A tile looked at in all eight flips and turns: how certain is what was found?

Overhead images have no up, so a network should find the same whichever way a tile is turned. What is found in
each turn is turned back; sightings of one object become one instance, with the mean of their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ann.data.outlines.masks import CroppedMask, common_box, crop_mask, part_inside
from ann.data.samples.augmentation import ORIENTATIONS, orient_image, orient_mask, turned_back
from ann.inference.tile_rows import TileBatch
from ann.inference.tiles import Tile
from maskrcnn.instances.instances import Certainty, Instance
from maskrcnn.instances.pairs import touching_pairs
from maskrcnn.instances.sightings import SAME_OBJECT_IOU

Finder = Callable[[TileBatch], Sequence[Sequence[Instance]]]


def turned_finder(finder: Finder, confidence: float) -> Finder:
    """A finder that asks another one about all turns of its tiles, which it is shown as scenes of their own.

    confidence: what counts as a vote. Of a turned tile it finds the turned instances, unless two scores are
    equal. Eight times the time, and the memory of the instances of eight tiles.
    """

    def find(batch: TileBatch) -> list[list[Instance]]:
        seen: list[list[tuple[int, Instance]]] = [[] for _ in batch.tiles]
        for turn in range(ORIENTATIONS):
            found = finder(_turned(batch, turn))
            for sightings, tile, instances in zip(seen, batch.tiles, found, strict=False):
                sightings += [(turn, _turned_back(one, turn, tile)) for one in instances]
        return [merge_turns(sightings, confidence) for sightings in seen]

    return find


def _turned(batch: TileBatch, turn: int) -> TileBatch:
    pixels = tuple(np.ascontiguousarray(orient_image(one, turn)) for one in batch.pixels)
    valid = tuple(np.ascontiguousarray(orient_image(one, turn)) for one in batch.valid)
    tiles = tuple(Tile(row=0, column=0, height=one.shape[0], width=one.shape[1]) for one in valid)
    return TileBatch(tiles=tiles, pixels=pixels, valid=valid)


def _turned_back(one: Instance, turn: int, tile: Tile) -> Instance:
    sides = (tile.height, tile.width) if turn % 2 == 0 else (tile.width, tile.height)
    mask = orient_mask(one.mask, turned_back(turn), *sides)
    return replace(one, mask=replace(mask, row=mask.row + tile.row, column=mask.column + tile.column))


def merge_turns(sightings: Iterable[tuple[int, Instance]], confidence: float) -> list[Instance]:
    """The objects of one tile, the best first. sightings: the turn, and what was found in it, turned back.

    The best sightings come first: one that shares SAME_OBJECT_IOU with the first of an object is that
    object's, if its turn has not shown that object yet. Score and spread are mean and standard deviation of
    the scores in all turns, 0 where the object was not found; the class is that of the highest sum of scores;
    a pixel is the object's where sightings of half of that sum cover it.
    """
    order = sorted(sightings, key=lambda one: (-one[1].score, one[1].mask.row, one[1].mask.column, one[0]))
    masks = [instance.mask for _, instance in order]
    objects: dict[int, dict[int, Instance]] = {}  # by the number of its first sighting, then by turn
    for number, earlier in enumerate(_rivals(masks)):
        turn, instance = order[number]
        alike = [
            (_iou(masks[first], instance.mask), -first)
            for first in earlier
            if first in objects and turn not in objects[first]
        ]
        best, first = max(alike, default=(0.0, 0))
        if best > SAME_OBJECT_IOU:
            objects[-first][turn] = instance
        else:
            objects[number] = {turn: instance}
    merged = [_merge(list(one.values()), confidence) for one in objects.values()]
    return sorted(merged, key=lambda one: -one.score)


def _merge(sightings: Sequence[Instance], confidence: float) -> Instance:
    scores = np.zeros(ORIENTATIONS)
    scores[: len(sightings)] = [one.score for one in sightings]
    votes = sum(one.score >= confidence for one in sightings)
    by_class: dict[int, float] = {}
    for one in sightings:
        by_class[one.class_id] = by_class.get(one.class_id, 0.0) + one.score
    return Instance(
        mask=_agreed_mask(sightings),
        class_id=max(by_class, key=lambda class_id: (by_class[class_id], -class_id)),
        score=float(scores.mean()),
        certainty=Certainty(votes=votes, spread=float(scores.std())),
    )


def _agreed_mask(sightings: Sequence[Instance]) -> CroppedMask:
    if len(sightings) == 1:
        return sightings[0].mask
    boxes = np.array([one.mask.box for one in sightings])
    y1, x1, y2, x2 = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
    weights = np.zeros((y2 - y1, x2 - x1))
    for one, (top, left, bottom, right) in zip(sightings, boxes, strict=True):
        weights[top - y1 : bottom - y1, left - x1 : right - x1] += one.score * one.mask.pixels
    agreed = crop_mask(2 * weights >= sum(one.score for one in sightings), int(y1), int(x1))
    return sightings[0].mask if agreed is None else agreed


def _rivals(masks: Sequence[CroppedMask]) -> list[list[int]]:
    """For each mask the earlier ones that it may share SAME_OBJECT_IOU with, by what their boxes share."""
    boxes = np.array([mask.box for mask in masks]).reshape(-1, 4)
    areas = np.array([mask.area for mask in masks])
    pairs = touching_pairs(boxes)
    first, second = pairs.T
    starts, ends = (
        np.maximum(boxes[first, :2], boxes[second, :2]),
        np.minimum(boxes[first, 2:], boxes[second, 2:]),
    )
    common = (ends - starts).prod(axis=1)  # at most, of the masks
    close = common > SAME_OBJECT_IOU * (areas[first] + areas[second] - common)
    earlier: list[list[int]] = [[] for _ in masks]
    for one, two in pairs[close].tolist():
        earlier[two].append(one)
    return earlier


def _iou(one: CroppedMask, two: CroppedMask) -> float:
    box = common_box(one.box, two.box)
    if box is None:
        return 0.0
    common = np.count_nonzero(part_inside(one, box) & part_inside(two, box))
    return common / (one.area + two.area - common)
