"""Areas of classes: connected cells, with a minimum size, whatever mask or region the user has set."""

from __future__ import annotations

import json

import pytest

from grass_session import create_mapset, create_project, open_session

CODE = """
import json, os, sys
from ann.grass.database import connected_database
from ann.grass.exchange import names_given
from ann.grass.region import computational_region
from ann.grass.temporary import TemporaryMaps
from unet.grass.areas import area_columns, finish_areas, make_areas

os.environ["CMDLINE"] = "a test"  # for the history; the parser sets it
classes, minimum_area = json.loads(sys.argv[1])
database = connected_database(area_columns())
with TemporaryMaps() as temporary:
    areas = make_areas("classes", computational_region(), temporary, minimum_area=minimum_area)
    made = finish_areas(areas, "areas", classes, source="it's", database=database, temporary=temporary)
    with names_given([made], temporary) as (named, failures):
        assert not failures, failures
        print(json.dumps([one.features for one in named]))
"""
FIELD, POND = "field", "pond, small"


@pytest.fixture
def classes(session):
    """20 x 20 cells of 2 m: fields in two halves with a strip of pond between, holes and specks."""
    session.run("g.region", "n=40", "s=0", "w=0", "e=40", "res=2")
    session.calc("classes = if(row() == 10, 2, if(col() <= 15, 1, null()))")
    session.calc("classes = if(row() == 4 && col() == 4, null(), if(row() == 2 && col() == 19, 2, classes))")
    return session


def make(session, minimum_area=None):
    (features,) = session.python_value(CODE, json.dumps([[FIELD, POND], minimum_area]))
    rows = session.rows("areas")
    assert features == len(rows) == session.topology("areas")["centroids"]
    assert {row["source"] for row in rows} <= {"it's"}
    assert not any(name.startswith("tmp_") for name in session.maps())
    return sorted((row["class"], float(row["area"])) for row in rows)


def test_each_area_of_connected_cells_has_its_class_and_size(classes):
    north, south = 4 * (9 * 15 - 1), 4 * 10 * 15
    assert make(classes) == [(FIELD, north), (FIELD, south), (POND, 4.0), (POND, 80.0)]
    assert classes.topology("areas")["islands"] == 3  # two outlines, a hole
    numbers = classes.out("v.category", "input=areas", "option=print", "layer=1,2", "type=centroid").split()
    by_category = {row["cat"]: row["class"] for row in classes.rows("areas")}
    assert {(by_category[cat], number) for cat, number in (one.split("|") for one in numbers)} == {
        (FIELD, "1"), (POND, "2"),
    }  # fmt: skip
    assert "a test" in classes.out("v.info", "-h", "map=areas")


def test_areas_below_the_minimum_go_to_a_neighbour_and_holes_are_closed(classes):
    assert make(classes, 10) == [(FIELD, 4 * 9 * 15), (FIELD, 4 * 10 * 15), (POND, 80)]
    classes.run("g.remove", "-f", "type=vector", "name=areas")
    rest = 4 * 5  # of the strip of pond, beyond the fields
    assert make(classes, 100) == [(FIELD, 4 * 20 * 15 + rest)]


def test_a_mask_and_areas_that_are_all_too_small(classes):
    classes.calc("western = if(col() < 3, 1, null())")
    classes.run("r.mask", "raster=western")
    assert (FIELD, 600.0) in make(classes)  # masked when the scene was read, not again
    classes.run("r.mask", "-r")
    classes.run("g.remove", "-f", "type=vector", "name=areas")
    assert make(classes, 1e6) == []


def test_the_minimum_is_in_the_units_of_the_map(grass_folder, addons):
    project = create_project(grass_folder / "feet_areas", "EPSG:2264")
    create_mapset(project, "areas")
    session = open_session(project, "areas", addons, grass_folder)
    session.run("g.region", "n=20", "s=0", "w=0", "e=20", "res=1")
    session.calc("classes = if(row() < 5, 1, if(row() == 12 && col() < 7, 2, null()))")
    assert make(session, 5) == [(FIELD, 80.0), (POND, 6.0)]
    session.run("g.remove", "-f", "type=vector", "name=areas")
    assert make(session, 7) == [(FIELD, 80.0)]
