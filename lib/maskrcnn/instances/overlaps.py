"""Decide overlaps by score: each pixel goes to the best object that covers it, one area per object.

Candidates are decided best first, as soon as nothing better that shares their pixels is open any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.instances.instances import Certainty
from maskrcnn.instances.merge import Candidate
from maskrcnn.instances.shapes import Shape, first_pixel, largest_part, middle_point, subtract
from maskrcnn.instances.sightings import Sighting


@dataclass(eq=False, kw_only=True)
class DecidedInstance:
    """An object with its final pixels, which no other one has. first, point: (row, column) of two of them.

    best: number of the sighting that class and score are of; shared: other scenes show its ground too, so its
    pixels are final in this scene only, and may lie in several parts.
    """

    shape: Shape
    class_id: int
    score: float
    certainty: Certainty | None
    first: tuple[int, int]
    point: tuple[int, int]
    best: int
    shared: bool


class OverlapDecision:
    """Takes settled candidates, gives instances whose pixels are final.

    shared: boxes (y1, x1, y2, x2) of the ground where other scenes look too. Objects in it are judged by what
    all scenes show, so here they keep all their parts, and are kept however small they are.
    """

    def __init__(self, minimum_area: int = 1, shared: Sequence[Sequence[int]] = ()):
        self._shared = np.array(shared, dtype=np.int64).reshape(-1, 4)
        self._minimum_area = minimum_area
        self._undecided: list[Candidate] = []
        self._owners: dict[int, Candidate] = {}  # by sighting number, decided or not
        self._shapes: dict[Candidate, Shape | None] = {}  # decided; None of those that were dropped

    def add(
        self, settled: Sequence[Candidate], open_sightings: Mapping[int, Sighting]
    ) -> list[DecidedInstance]:
        """Decide what can be decided now.

        A candidate waits for open sightings that share its pixels, and for better candidates that wait.
        """
        for candidate in settled:
            self._owners.update(dict.fromkeys(candidate.sightings, candidate))
        waiting = sorted([*self._undecided, *settled], key=lambda one: one.rank)
        self._undecided = []
        decided = []
        for candidate in waiting:  # better ones come first, so one pass is enough
            rivals = self._better_rivals(candidate, open_sightings)
            if rivals is None:
                self._undecided.append(candidate)
                continue
            shared = self._is_shared(candidate.shape)
            if shared:
                shape = leave_to_better(candidate.shape, rivals)
            else:
                shape = decide_pixels(candidate.shape, rivals, self._minimum_area)
            self._shapes[candidate] = shape
            if shape is not None:
                decided.append(
                    DecidedInstance(
                        shape=shape,
                        class_id=candidate.class_id,
                        score=candidate.score,
                        certainty=candidate.certainty,
                        first=first_pixel(shape),
                        point=middle_point(shape),
                        best=candidate.best,
                        shared=shared,
                    )
                )
        return decided

    def final_rows(self, coming: int, open_sightings: Mapping[int, Sighting]) -> int:
        """Number of scene rows from the top that nothing can change any more. Forgets what lies in them only.

        coming: first row of the tiles to come.
        """
        tops = [sighting.mask.box[0] for sighting in open_sightings.values()]
        tops += [candidate.shape.box[0] for candidate in self._undecided]
        limit = min([coming, *tops])
        gone = [candidate for candidate in self._shapes if candidate.shape.box[2] <= limit]
        for candidate in gone:
            del self._shapes[candidate]
            for number in candidate.sightings:
                del self._owners[number]
        return limit

    def _is_shared(self, shape: Shape) -> bool:
        y1, x1, y2, x2 = shape.box
        boxes = self._shared
        hits = (boxes[:, 0] < y2) & (boxes[:, 2] > y1) & (boxes[:, 1] < x2) & (boxes[:, 3] > x1)
        return bool(hits.any())

    def _better_rivals(
        self, candidate: Candidate, open_sightings: Mapping[int, Sighting]
    ) -> list[Shape] | None:
        """Final shapes of the better candidates that share pixels; None where one of them is not final."""
        rivals: dict[Candidate, Shape] = {}
        for number in candidate.overlapping:
            if number in open_sightings:
                return None
            owner = self._owners.get(number)  # None: beaten by another sighting, which counts instead
            if owner is None or owner is candidate or owner.rank > candidate.rank:
                continue
            if owner not in self._shapes:
                return None
            shape = self._shapes[owner]
            if shape is not None:
                rivals[owner] = shape
        return list(rivals.values())


def decide_pixels(shape: Shape, better: list[Shape], minimum_area: int = 1) -> Shape | None:
    """What remains of an object beside better ones; None where that is too little.

    Dropped are objects of which better ones cover more than half, and those with less than `minimum_area`
    pixels at the end. Of what is left the largest part that hangs together over pixel edges is the object;
    holes stay holes. The pixels of its other parts, and of dropped objects, are free for the next ones.
    """
    rest = leave_to_better(shape, better)
    if rest is None:
        return None
    part = largest_part(rest)
    return part if part.area >= minimum_area else None


def leave_to_better(shape: Shape, better: list[Shape]) -> Shape | None:
    """What better objects leave of one, in however many parts; None where they cover more than half of it."""
    rest = subtract(shape, better) if better else shape
    return None if rest is None or 2 * rest.area < shape.area else rest
