"""Recognise the same object in several tiles and make one candidate of its sightings.

Tile rows come in order. An object is settled when no coming tile can show any of its sightings; until then
its masks are kept packed, tile by tile. The rule is described with a picture in docs/merging.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ann.inference.tiles import Tile, TileGrid
from maskrcnn.instances.instances import Certainty, Instance
from maskrcnn.instances.pairs import touching_pairs
from maskrcnn.instances.shapes import Shape, count_common, find, join, unite
from maskrcnn.instances.sightings import OUTLINE_TOLERANCE, Rank, Sighting, make_sighting, recognise

# Whole sightings linked only through others: two drawings of one object share more than this, two objects
# that one bad sighting chained together share a pixel or two along their edge.
SAME_CHAIN_SHARE = 0.25


@dataclass(eq=False, kw_only=True)
class Candidate:
    """An object of the scene before its pixels are decided.

    best: number of the sighting that class, score and certainty are of; sightings: numbers of those it is
    made of; overlapping: numbers of all that share pixels with one of them.
    """

    shape: Shape
    best: int
    class_id: int
    score: float
    certainty: Certainty | None
    rank: Rank
    sightings: frozenset[int]
    overlapping: frozenset[int]


class Recogniser:
    """Takes the instances of tile rows in order, gives candidates as soon as they are settled."""

    def __init__(self, grid: TileGrid):
        self._grid = grid
        self._count = 0
        self._row = 0
        self._active: list[Sighting] = []  # near enough to coming tiles to be compared
        self._open: dict[int, Sighting] = {}  # not settled
        self._parents: dict[int, int] = {}  # of the open ones: sets of the same object

    @property
    def open_sightings(self) -> dict[int, Sighting]:
        """Sightings whose object is not settled, by number."""
        return self._open

    def add_row(self, found: Sequence[tuple[Tile, Sequence[Instance]]]) -> list[Candidate]:
        """Add the next row of tiles, in any order, and settle what no coming tile can change."""
        coming = self._grid.next_start(self._row)
        self._row += 1
        arrived = self._make_sightings(found)
        self._compare(arrived)
        self._active = [one for one in self._active + arrived if one.bottom + OUTLINE_TOLERANCE > coming]

        groups: dict[int, list[Sighting]] = defaultdict(list)
        for number, sighting in self._open.items():
            groups[find(self._parents, number)].append(sighting)
        candidates: list[Candidate] = []
        for group in groups.values():
            if all(sighting.bottom <= coming for sighting in group):
                candidates.extend(resolve(group))
                for sighting in group:
                    del self._open[sighting.number], self._parents[sighting.number]
        return sorted(candidates, key=lambda one: one.rank)

    def _make_sightings(self, found: Sequence[tuple[Tile, Sequence[Instance]]]) -> list[Sighting]:
        arrived = []
        for tile, instances in sorted(found, key=lambda pair: pair[0].column):
            for index, instance in enumerate(instances):
                arrived.append(make_sighting(instance, tile, index, self._count, self._grid))
                self._count += 1
        for sighting in arrived:
            self._open[sighting.number] = sighting
            self._parents[sighting.number] = sighting.number
        return arrived

    def _compare(self, arrived: list[Sighting]) -> None:
        everyone = self._active + arrived
        masks = [tuple(sighting.mask) for sighting in everyone]  # unpacked once
        old = len(self._active)
        pairs = touching_pairs([sighting.mask.box for sighting in everyone], gap=OUTLINE_TOLERANCE)
        for one, two in recognise(everyone, masks, pairs[pairs[:, 1] >= old]):
            join(self._parents, one.number, two.number)


def resolve(group: Sequence[Sighting]) -> list[Candidate]:
    """Objects out of sightings that hang together as "the same object".

    A whole sighting stands for itself and beats all that are the same as it, the best first; also those that
    are so by way of a third sighting and share SAME_CHAIN_SHARE of the smaller one's pixels. Cut sightings
    that are the same as no whole one, nor a part of a cut one that is, are united as far as they hang
    together; the best of them gives class, score and rank. Of these, a strip beside an object that another
    tile saw better is left out.
    """
    group = sorted(group, key=lambda sighting: sighting.rank)
    whole = {sighting.number for sighting in group if sighting.is_whole}
    kept: list[Sighting] = []
    for sighting in group:
        if sighting.is_whole and not any(_is_beaten(sighting, better) for better in kept):
            kept.append(sighting)
    chosen = [[sighting] for sighting in kept]

    cut = {one.number: one for one in group if not one.is_whole and not one.same & whole}
    replaced = [one for one in group if not one.is_whole and one.same & whole]
    while replaced and cut:
        last = replaced.pop()
        for number in last.same & cut.keys():
            if last.place in cut[number].watchers:  # a smaller part of what the last one showed
                replaced.append(cut.pop(number))
    parents = {number: number for number in cut}
    for number, sighting in cut.items():
        for other in sighting.same & cut.keys():
            join(parents, number, other)
    unions: dict[int, list[Sighting]] = defaultdict(list)
    for number, sighting in cut.items():  # best first, as the group
        unions[find(parents, number)].append(sighting)
    chosen.extend(union for union in unions.values() if not all(one.is_sliver for one in union))
    return [_candidate(sightings) for sightings in chosen]


def _is_beaten(sighting: Sighting, better: Sighting) -> bool:
    """Of two whole sightings that hang together."""
    if better.number in sighting.same:
        return True
    if better.number not in sighting.overlapping:
        return False
    common = count_common(sighting.mask, better.mask)
    return common >= SAME_CHAIN_SHARE * min(sighting.area, better.area)


def _candidate(sightings: Sequence[Sighting]) -> Candidate:
    best = sightings[0]
    return Candidate(
        shape=_union([sighting.mask for sighting in sightings]),
        best=best.number,
        class_id=best.class_id,
        score=best.score,
        certainty=best.certainty,
        rank=best.rank,
        sightings=frozenset(sighting.number for sighting in sightings),
        overlapping=frozenset().union(*(sighting.overlapping for sighting in sightings)),
    )


def _union(shapes: Sequence[Shape]) -> Shape:
    return shapes[0] if len(shapes) == 1 else unite([piece for shape in shapes for piece in shape.pieces])
