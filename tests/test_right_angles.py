"""Right-angled outlines: what is nearly rectangular becomes so, everything else stays as it was."""

import numpy as np
import pytest
import shapely
from rasterio import features
from scipy import ndimage
from shapely import Polygon, affinity

from ann.data.outlines.right_angles import LEAST_IOU, regularize, right_angled

SIDE = 120  # cells of a drawn mask
TOLERANCE = 2.0  # cells
RECTANGLE = Polygon([(30, 40), (90, 40), (90, 75), (30, 75)])
L_SHAPE = Polygon([(30, 30), (90, 30), (90, 60), (60, 60), (60, 95), (30, 95)])
CIRCLE = shapely.Point(60, 60).buffer(35)


def outlines_of_cells(labels):
    """The polygons around the cells of each value but 0, by value."""
    found = features.shapes(labels.astype(np.uint8), connectivity=4)
    return {int(value): shapely.geometry.shape(one) for one, value in found if value}


def noisy_outline(shape, noise=1.0, seed=0):
    """The cells inside of a shape whose border is moved by `noise` cells, as a network would draw it."""
    inside = features.rasterize([shape], (SIDE, SIDE)).astype(bool)
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=inside.shape), 1.5)
    labels, _ = ndimage.label(distance + noise * field / field.std() > 0)
    return outlines_of_cells(labels == np.bincount(labels[labels > 0]).argmax())[1]


def iou(one, two):
    return one.intersection(two).area / one.union(two).area


def angles(ring):
    """Angles between the edges of a ring that follow each other, degrees, 0 to 90."""
    edges = np.diff(np.asarray(ring.coords), axis=0)
    directions = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    turns = np.abs(np.diff(directions, append=directions[0])) % 180
    return np.minimum(turns, 180 - turns)


@pytest.mark.parametrize(("shape", "corners"), [(RECTANGLE, 4), (L_SHAPE, 6)])
@pytest.mark.parametrize("turn", [0, 20, 45, 70])
def test_noisy_turned_shapes_get_their_corners_back(shape, corners, turn):
    turned = affinity.rotate(shape, turn)
    found = right_angled(noisy_outline(turned, seed=turn), TOLERANCE)
    assert len(found.exterior.coords) - 1 == corners
    assert angles(found.exterior) == pytest.approx(90, abs=1)
    assert iou(found, turned) > 0.96
    edge = np.diff(np.asarray(found.exterior.coords)[:2], axis=0)[0]
    assert (np.degrees(np.arctan2(edge[1], edge[0])) - turn + 45) % 90 - 45 == pytest.approx(0, abs=1.5)


@pytest.mark.parametrize(
    "shape",
    [
        CIRCLE,
        affinity.scale(CIRCLE, 1.3, 0.6),
        Polygon([(20, 20), (100, 30), (40, 100)]),
        Polygon(60 + 40 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1)),
    ],
)
def test_round_and_slanting_shapes_stay_as_they_are(shape):
    outline = noisy_outline(shape)
    assert regularize([outline], TOLERANCE) == [outline]


def test_what_is_much_smaller_than_the_tolerance_stays_as_it_is():
    cells = Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
    assert regularize([cells], 5.0) == [cells]


def test_holes_stay_and_become_right_angled_too():
    court = affinity.rotate(Polygon([(45, 50), (75, 50), (75, 65), (45, 65)]), 20, origin=(60, 57.5))
    outline = noisy_outline(affinity.rotate(RECTANGLE, 20, origin=(60, 57.5)).difference(court), 0.5)
    found = right_angled(outline, TOLERANCE)
    (hole,) = found.interiors
    assert len(hole.coords) - 1 == 4 and angles(hole) == pytest.approx(90, abs=1)
    assert iou(Polygon(hole), court) > 0.9


def test_neighbours_do_not_come_to_overlap():
    generator = np.random.default_rng(1)
    walls = 40 + np.rint(ndimage.gaussian_filter1d(generator.normal(size=60), 2) * 4).astype(int)
    labels = np.zeros((SIDE, SIDE), int)
    for row, wall in enumerate(walls, 20):  # two houses with one wall, which no mask draws straight
        labels[row, 10:wall], labels[row, wall:80] = 1, 2
    labels[40:60, 80:100] = ndimage.binary_dilation(np.eye(20)[::-1], iterations=4) * 3  # something slanting
    before = outlines_of_cells(labels)
    after = dict(zip(before, regularize(list(before.values()), TOLERANCE), strict=True))
    assert after[3] == before[3]
    for one in (1, 2):
        assert len(after[one].exterior.coords) - 1 == 4
        assert angles(after[one].exterior) == pytest.approx(90, abs=1)
    for one in (1, 2, 3):
        assert iou(after[one], before[one]) >= LEAST_IOU
        assert all(after[one].intersection(after[two]).area < 1e-6 for two in after if two != one)


def test_a_border_that_touches_itself_is_no_hindrance():
    ring = [(0, 0), (40, 0), (40, 30), (30, 30), (30, 20), (20, 20), (30, 30), (0, 30)]  # at (30, 30)
    found = regularize([Polygon(ring), Polygon([(40, 0), (60, 0), (60, 30), (40, 30)])], TOLERANCE)
    assert all(angles(one.exterior) == pytest.approx(90, abs=1) for one in found)
    assert found[0].intersection(found[1]).area < 1e-6


def test_none_in_gives_none_out():
    assert regularize([], TOLERANCE) == []
