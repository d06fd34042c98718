"""Right-angled outlines: walls along an object's main direction in place of a noisy outline.

An outline is seen as points at equal distances. Of all ways to cut them into stretches that run by turns
along and across the main direction, the one is taken that has the least sum of squared distances from the
walls, where each wall costs as much as WALL_COST says; dynamic programming finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon, affinity

LEAST_IOU = 0.9  # of a right-angled outline with the one as found
# How much of the outline agrees on a main direction, 0 to 1, see `_direction`. On drawn shapes with
# borders as noisy as the tolerance: 0.5 and more for rectangles and L shapes, below 0.25 for circles,
# ellipses, hexagons and equilateral triangles.
LEAST_AGREEMENT = 0.35
# How much longer the walls may be than the outline: along a slanting side they would go in steps.
LONGEST_WALLS = 1.1
SMOOTHED = 6.0  # tolerances along the outline over which its direction is looked at, at most a 16th of it
# In cubes of the tolerance: a bay in a wall (four walls more) that is twice the tolerance deep stays if it is
# four times as wide, a long step (two walls more) from little more than the tolerance on.
WALL_COST = 4.0
FEWEST_POINTS, MOST_POINTS = 24, 400  # of a ring; time grows with their square
ROUNDING = 1e-6  # tolerances; outlines that share less don't overlap


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """Walls of one ring. corners: (n, 2), map units; start: the index of the point where a wall begins;
    direction: radians, better than the one that the fit began with.
    """

    corners: np.ndarray
    start: int
    direction: float


def regularize(outlines: Sequence[Polygon], tolerance: float) -> list[Polygon]:
    """Outlines with right angles in place of those that are nearly so; all others as they are.

    outlines: of objects that don't overlap, with their holes. tolerance: how far, in their units, the
    outline of an object may lie beside its walls; what is smaller than about twice of it goes.

    An outline stays as it is where no right-angled one has an IoU of LEAST_IOU with it, where that one's
    walls would be longer than the outline (of something round or slanting), and where it would overlap a
    neighbour. Of two neighbours whose walls meet, the smaller one is cut, if that leaves it right-angled.
    Memory is that of the outlines.
    """
    found = [right_angled(outline, tolerance) for outline in outlines]
    grounds = [_ground(outline) for outline in outlines]
    result = [ground if new is None else new for ground, new in zip(grounds, found, strict=True)]
    changed = np.array([new is not None for new in found], dtype=bool)
    least = ROUNDING * tolerance**2
    while True:
        pairs = _overlapping(result, changed, least)
        if not pairs:
            kept = zip(result, outlines, changed, strict=True)
            return [new if is_new else outline for new, outline, is_new in kept]
        for one, two in pairs:
            if result[one].intersection(result[two]).area <= least:  # since one of them was changed
                continue
            loser, winner = _loser_first(one, two, grounds, changed)
            pieces = _cut(result[loser], result[winner], ROUNDING * tolerance) if changed[winner] else ()
            fitting = (
                piece
                for piece in pieces
                if _is_like(piece, grounds[loser]) and piece.intersection(result[winner]).area <= least
            )
            result[loser] = next(fitting, grounds[loser])
            changed[loser] = result[loser] is not grounds[loser]


def right_angled(outline: Polygon, tolerance: float) -> Polygon | None:
    """The outline of one object with right angles; None if it has none, see `regularize`."""
    ring = np.asarray(outline.exterior.coords)
    direction, agreement = _direction(ring, tolerance)
    if agreement < LEAST_AGREEMENT:
        return None
    fit = _fit_ring(ring, direction, tolerance)
    for _ in range(2):
        if fit is None:
            return None
        fit = _fit_ring(ring, fit.direction, tolerance, fit.start)
    if fit is None or _length(fit.corners) > LONGEST_WALLS * outline.exterior.simplify(tolerance).length:
        return None
    holes = []
    for interior in outline.interiors:
        found = _fit_ring(np.asarray(interior.coords), fit.direction, tolerance)
        alike = found is not None and _is_like(Polygon(found.corners), Polygon(interior))
        holes.append(found.corners if alike else interior)
    result = Polygon(fit.corners, holes)
    return result if result.is_valid and _is_like(result, _ground(outline)) else None


def _ground(outline: Polygon) -> Polygon | MultiPolygon:
    """What lies inside; the border of an area may touch itself, which shapely can't overlay."""
    return outline if outline.is_valid else outline.buffer(0)


def _is_like(new: Polygon, outline: Polygon | MultiPolygon) -> bool:
    common = new.intersection(outline).area
    return common >= LEAST_IOU * (new.area + outline.area - common)


def _length(corners: np.ndarray) -> float:
    return float(np.hypot(*(np.roll(corners, -1, axis=0) - corners).T).sum())


def _direction(ring: np.ndarray, tolerance: float) -> tuple[float, float]:
    """The main direction of a ring, radians, and how far it agrees on it: 1 a rectangle, 0 a circle."""
    points, step = _spaced(ring, tolerance / 2)
    width = max(1, round(min(SMOOTHED * tolerance / step, len(points) / 16)))
    smooth = np.mean([np.roll(points, shift, axis=0) for shift in range(width)], axis=0)
    edges = np.roll(smooth, -1, axis=0) - smooth
    lengths = np.hypot(*edges.T)
    # quarter turns make no difference
    total = complex((lengths * np.exp(4j * np.arctan2(edges[:, 1], edges[:, 0]))).sum())
    return float(np.angle(total)) / 4, abs(total) / max(float(lengths.sum()), 1e-300)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _fit_ring(ring: np.ndarray, direction: float, tolerance: float, start: int | None = None) -> _Fit | None:
    """The best walls for a closed ring (m, 2); None if they make no simple polygon.

    start: the point where a wall begins; by default the outermost one of a corner of the ring's box.
    """
    middle = ring.mean(axis=0)
    points, step = _spaced(ring - middle, tolerance / 2)
    points = _turn(points, -direction)
    if start is None:
        start = int(np.argmax(points.sum(axis=1)))
    points = np.roll(points, -start, axis=0)
    breaks, first_axis = _cut_into_walls(points, WALL_COST * tolerance**3 / step)
    count = len(breaks) - 1
    if count < 4:
        return None
    axes = [(first_axis + wall) % 2 for wall in range(count)]  # 0: along x, so y is what it has in common
    parts = [points[begin:end] for begin, end in pairwise(breaks)]
    places = [float(np.median(part[:, 1 - axis])) for part, axis in zip(parts, axes, strict=True)]
    corners = np.empty((count, 2))
    for wall in range(count):  # where a wall meets the one before
        corners[wall, 1 - axes[wall]] = places[wall]
        corners[wall, axes[wall]] = places[wall - 1]
    if not Polygon(corners).is_valid:
        return None
    return _Fit(
        corners=_turn(corners, direction) + middle,
        start=(start + breaks[count // 2]) % len(points),
        direction=direction + _slant(parts, axes),
    )


def _slant(parts: Sequence[np.ndarray], axes: Sequence[int]) -> float:
    """By which angle the points of all walls together lie slanting, radians: least squares for small ones."""
    slope = spread = 0.0
    for part, axis in zip(parts, axes, strict=True):
        x, y = (part - part.mean(axis=0)).T
        slope += float((x * y).sum()) * (1 - 2 * axis)
        spread += float(((x, y)[axis] ** 2).sum())
    return math.atan(slope / spread) if spread else 0.0


def _spaced(ring: np.ndarray, distance: float) -> tuple[np.ndarray, float]:
    """Points along a closed ring at equal distances, about as given, (n, 2), and the distance."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    count = int(np.clip(math.ceil(along[-1] / distance), FEWEST_POINTS, MOST_POINTS))
    step = along[-1] / count
    places = (np.arange(count) + 0.5) * step
    return np.stack([np.interp(places, along, ring[:, axis]) for axis in (0, 1)], axis=1), step


def _cut_into_walls(points: np.ndarray, wall_cost: float) -> tuple[list[int], int]:
    """Breaks between the walls, from 0 to n, and the axis of the first one.

    points: (n, 2), closed, whose first one begins a wall. wall_cost: in squared units.
    """
    count = len(points)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(points, axis=0)]).T
    squares = np.concatenate([np.zeros((1, 2)), np.cumsum(points**2, axis=0)]).T
    lengths = np.arange(count + 1)[:, None] - np.arange(count + 1)  # [j, i]: of a wall from i to j
    # deviation[axis, j, i]: of a wall along that axis, which has the other coordinate in common
    deviation = (squares[:, :, None] - squares[:, None]) - (
        sums[:, :, None] - sums[:, None]
    ) ** 2 / np.maximum(lengths, 1)
    deviation = deviation[::-1]
    # costs[first, axis, j]: of the best walls up to j, the first of which runs along the axis `first` and the
    # last along `axis`
    costs = np.full((2, 2, count + 1), np.inf)
    costs[0, 1, 0] = costs[1, 0, 0] = 0.0
    came_from = np.zeros((2, 2, count + 1), dtype=np.int64)
    for end in range(1, count + 1):
        through = costs[:, ::-1, :end] + deviation[:, end, :end]
        came_from[:, :, end] = through.argmin(axis=2)
        costs[:, :, end] = through.min(axis=2) + wall_cost
    first = int(costs[1, 0, count] < costs[0, 1, count])  # the last wall stands across to the first
    breaks, axis = [count], 1 - first
    while breaks[-1] > 0:
        breaks.append(int(came_from[first, axis, breaks[-1]]))
        axis = 1 - axis
    return breaks[::-1], first


def _overlapping(outlines: Sequence[Polygon], changed: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs that share more than `least`, one of them changed; the others never did."""
    changed_ones = np.flatnonzero(changed)
    shapes = np.array(outlines, dtype=object)
    found = shapely.STRtree(shapes).query(shapes[changed_ones], predicate="intersects")
    pairs = {tuple(sorted((int(changed_ones[one]), int(two)))) for one, two in found.T}
    pairs = sorted(pair for pair in pairs if pair[0] != pair[1])
    if not pairs:
        return []
    one, two = np.array(pairs).T
    shared = shapely.area(shapely.intersection(shapes[one], shapes[two]))
    return [pair for pair, area in zip(pairs, shared, strict=True) if area > least]


def _loser_first(
    one: int, two: int, outlines: Sequence[Polygon | MultiPolygon], changed: np.ndarray
) -> tuple[int, int]:
    """Which of two gives way: the one that was changed, of two such the smaller one."""
    if changed[one] and changed[two]:
        return (one, two) if outlines[one].area < outlines[two].area else (two, one)
    return (one, two) if changed[one] else (two, one)


def _cut(loser: Polygon, winner: Polygon, margin: float) -> Iterator[Polygon]:
    """What is left of a right-angled outline whose walls are moved back to clear of another, in one piece:
    at first whole walls, then only where they meet it.
    """
    (x1, y1), (x2, y2) = loser.exterior.coords[:2]
    angle = math.atan2(y2 - y1, x2 - x1)
    own = affinity.rotate(loser, -angle, origin=(0, 0), use_radians=True)
    common = affinity.rotate(loser.intersection(winner), -angle, origin=(0, 0), use_radians=True)
    boxes = np.array([part.bounds for part in getattr(common, "geoms", (common,))])
    boxes += np.array([-1, -1, 1, 1]) * margin
    upright = (boxes[:, 3] - boxes[:, 1] > boxes[:, 2] - boxes[:, 0])[:, None]
    limits = np.array(own.bounds) + np.array([-1, -1, 1, 1]) * margin
    for part in (np.where(upright == [False, True, False, True], limits, boxes), boxes):
        rest = own.difference(shapely.union_all(shapely.box(*part.T)))
        if isinstance(rest, Polygon) and not rest.is_empty:
            yield affinity.rotate(rest, angle, origin=(0, 0), use_radians=True)
