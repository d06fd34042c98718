"""Features of vector maps as labelled chips of raster maps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from grass_session import create_mapset, open_session

SCRIPT = str(Path(__file__).with_name("grass_classes.py"))


def write_areas(session, name, boxes, folder):
    """A map of rectangles (west, south, east, north), categories from 1 on, with their class in a column."""
    lines = ""
    for category, ((x1, y1, x2, y2), _) in enumerate(boxes, 1):
        corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))
        lines += "B 5\n" + "".join(f" {x} {y}\n" for x, y in corners)
        lines += f"C 1 1\n {(x1 + x2) / 2} {(y1 + y2) / 2}\n 1 {category}\n"
    path = folder / f"{name}.txt"
    path.write_text(lines)
    session.run("v.in.ascii", "-n", f"input={path}", f"output={name}", "format=standard", "--overwrite")
    session.run("v.db.addtable", f"map={name}", "columns=kind varchar(20)")
    values = "".join(
        f"UPDATE {name} SET kind = '{kind}' WHERE cat = {category};\n"
        for category, (_, kind) in enumerate(boxes, 1)
    )
    path.write_text(values)
    session.run("db.execute", f"input={path}")


@pytest.fixture(scope="module")
def maps(project, addons, grass_folder, tmp_path_factory):
    """20 x 20 cells whose values are 20 * row + column from the north-west corner, both from 0 on."""
    create_mapset(project, "feature_classes")
    session = open_session(project, "feature_classes", addons, grass_folder)
    tmp_path = tmp_path_factory.mktemp("vectors")
    session.run("g.region", "n=20", "s=0", "w=0", "e=20", "res=1")
    session.calc("band = 20 * (row() - 1) + col() - 1")
    session.calc("other = if(col() > 18, null(), 7)")
    write_areas(
        session,
        "parcels",
        [((2, 14, 6, 17), "field"), ((10, 2, 12, 4), "water"), ((17, 8, 20, 11), "field")],
        tmp_path,
    )
    return session


def opened(session, **request):
    request = {"band1": "band", "labels": "parcels", "class_column": "kind"} | request
    done = session.run(sys.executable, SCRIPT, json.dumps(request))
    return json.loads(done.stdout.splitlines()[-1])


def test_an_area_is_seen_with_the_square_around_it(maps):
    found = opened(maps, scenes="image")
    assert found["classes"] == ["field", "water"]
    first, second, third = found["images"]
    # 4 x 3 cells in a square of 4: from row 2.5 on, so that the middle of row 2 is on its edge
    assert [row[0] for row in first["first_band"]] == [42, 62, 82, 102] and len(first["first_band"][0]) == 4
    assert (first["class"], second["class"], third["class"]) == (1, 2, 1)
    assert first["pixel_size"] == 1 and "parcels" in first["name"] and "category 1" in first["name"]
    assert second["first_band"] == [[330, 331], [350, 351]]


def test_the_square_can_be_larger_and_is_cut_off_at_the_map(maps):
    found = opened(maps, chip_size="6", band2="other", scenes="image")
    third = found["images"][2]
    assert [len(third["first_band"]), len(third["first_band"][0])] == [6, 5]
    assert third["valid"] == ["###.."] * 6  # where the other band is NULL


def test_inside_of_areas_alone(maps):
    found = opened(maps, chip="inside", scenes="image")
    assert found["images"][0]["valid"] == ["...."] + ["####"] * 3
    assert found["images"][0]["first_band"][0] == [0, 0, 0, 0]


def test_points_have_chips_of_cells(maps, tmp_path):
    (tmp_path / "points.txt").write_text("5|5|water\n15|15|field\n90|90|field\n")
    maps.run(
        "v.in.ascii",
        f"input={tmp_path / 'points.txt'}",
        "output=spots",
        "columns=x double precision, y double precision, kind varchar(9)",
    )
    found = opened(maps, labels="spots", side=4, scenes="image")
    assert [image["class"] for image in found["images"]] == [2, 1]
    assert found["images"][0]["first_band"][0] == [263, 264, 265, 266]
    assert "lie outside of <band@" in found["notes"][0] and "category 3" in found["notes"][0]
    refused = opened(maps, labels="spots", chip="inside")
    assert "chip=inside needs areas" in refused["error"]


def test_large_chips_are_shrunk_by_means(maps):
    found = opened(maps, chip_size="16", longest=4, scenes="image")
    second = found["images"][1]  # cut off by the map's edge: 11 rows and 16 columns
    assert [len(second["first_band"]), len(second["first_band"][0])] == [3, 4]
    assert second["first_band"][0][:2] == [204, 208]  # rows 9 to 11, columns 3 to 6 and 7 to 10
    assert second["pixel_size"] == pytest.approx(11 / 3)


def test_features_of_a_square_of_ground_are_one_scene(maps):
    sources = [image["source"] for image in opened(maps, block_size="5")["images"]]
    assert len(set(sources)) == 3
    sources = [image["source"] for image in opened(maps, block_size="40")["images"]]
    assert len(set(sources)) == 1


def test_unclear_classes_are_named(maps):
    assert "class_column=" in opened(maps, class_column="")["error"]
    assert "no column 'what'" in opened(maps, class_column="what")["error"]
    assert "'field'" in opened(maps, classes=["water", "town"])["error"]
    found = opened(maps, classes=["wet", "dry"], class_values="water:wet,field:dry")
    assert [image["class"] for image in found["images"]] == [2, 1, 2]
