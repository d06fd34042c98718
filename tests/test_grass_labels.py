"""Raster maps with label maps as training data: what is labelled where and as what; faults are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from grass_session import create_project, open_session

SCRIPT = Path(__file__).with_name("grass_labels.py")
DETECTION = Path(__file__).with_name("grass_detection.py")
ROWS, COLUMNS = 12, 20  # of the maps, cells of 2 m from north 1000, west 500 on
BANDS = {"band1": "red", "band2": "green"}


@pytest.fixture
def maps(session):
    """Two maps of ROWS x COLUMNS cells; the second has a NULL in row 10, column 18 (from 0)."""
    session.run("g.region", "n=1000", f"s={1000 - 2 * ROWS}", "w=500", f"e={500 + 2 * COLUMNS}", "res=2")
    session.calc("red = row() * 100 + col()")
    session.calc("green = if(row() == 11 && col() == 19, null(), 1)")
    return session


def box(y1, x1, y2, x2):
    """A closed ring around these cells."""
    return [[500 + 2 * x, 1000 - 2 * y] for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))]


def write_areas(session, tmp_path, name, polygons, **columns):
    """A vector map of polygons (lists of rings); columns: values of each."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": {column: values[number] for column, values in columns.items()},
        }
        for number, rings in enumerate(polygons)
    ]
    path = tmp_path / f"{name}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    session.run("v.in.ogr", "-o", f"input={path}", f"output={name}", "snap=-1", "--quiet")


def look(session, classes="a", **request):
    """What `grass_labels.py` prints for these options."""
    request = {**BANDS, "labels": "labels", "classes": classes.split(","), **request}
    return json.loads(session.run(sys.executable, str(SCRIPT), json.dumps(request)).stdout.splitlines()[-1])


def boxes(image):
    """(class id, y1, x1, y2, x2) of each object."""
    found = []
    for class_id, mask in zip(image["class_ids"], image["masks"], strict=True):
        rows, columns = np.nonzero(np.array([list(row) for row in mask]) == "#")
        found.append((class_id, *map(int, (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))))
    return sorted(found)


def test_areas_come_to_lie_on_their_cells(maps, tmp_path):
    polygons = [
        [box(1, 2, 5, 7), box(2, 3, 4, 5)],  # with a hole
        [box(3, 15, 7, 25)],  # reaches out of the maps
        [box(8, 2, 10, 4)],  # 8 and 9 overlap in a cell
        [box(9, 3, 12, 6)],
        [box(1.6, 10.6, 2.4, 11.4)],  # smaller than a cell, no centre in it
        [box(50, 50, 60, 60)],  # elsewhere
        [box(9, 16, 12, 20)],  # over the NULL
    ]
    write_areas(maps, tmp_path, "labels", polygons, **{"class": list("abaaaba")}, id=list(range(7)))
    region = maps.region()
    found = look(maps, "b,a")
    (image,) = found["images"]
    assert image["shape"] == [ROWS, COLUMNS, 2] and image["pixel_size"] == 2
    assert image["dtype"] == "uint16" and image["first_band"][3][4] == 405
    assert boxes(image) == [
        (1, 3, 15, 7, 20),
        (2, 1, 2, 5, 7),
        (2, 8, 2, 10, 4),
        (2, 9, 3, 12, 6),
        (2, 9, 16, 12, 20),
    ]
    assert image["counts"] == [1, 4]
    holed = image["masks"][image["class_ids"].index(2)]
    assert [row[2:7] for row in holed[1:5]] == ["#####", "#..##", "#..##", "#####"]
    cut = image["visible"][image["class_ids"].index(1)]
    assert cut == pytest.approx(0.5)
    assert image["valid"][10] == "#" * 18 + ".#"
    null = next(mask for mask in image["masks"] if mask[10][16] == "#")
    assert null[10][16:] == "##.#"
    small = next(note for note in found["notes"] if "too small" in note)
    assert small.startswith("1 label(s)") and "<labels@" in small and "category 5" in small
    assert maps.region() == region and maps.maps() == {"red", "green", "labels"}


def test_the_region_limits_the_extent_and_not_the_resolution(maps, tmp_path):
    write_areas(maps, tmp_path, "labels", [[box(1, 2, 5, 7)]], kind=["a"])
    maps.run("g.region", "n=994", "s=980", "w=506", "e=520", "res=0.7")
    (image,) = look(maps)["images"]
    assert image["shape"] == [7, 7, 2] and image["first_band"][0][0] == 404
    assert boxes(image) == [(1, 0, 0, 2, 4)]
    maps.calc("shown = if(y() > 992, 1, null())")
    maps.run("r.mask", "raster=shown")
    (image,) = look(maps)["images"]
    assert image["valid"] == ["#" * 7] + ["." * 7] * 6
    assert boxes(image) == [(1, 0, 0, 1, 4)]
    maps.run("r.mask", "-r")
    maps.run("g.region", "n=500", "s=400", "w=0", "e=100", "res=1")
    assert "g.region raster=red@" in look(maps)["error"]


def test_only_training_areas_are_seen(maps, tmp_path):
    write_areas(maps, tmp_path, "labels", [[box(1, 1, 4, 4)], [box(2, 6, 5, 12)], [box(9, 9, 11, 11)]])
    triangle = [[500, 1000], [520, 1000], [500, 980], [500, 1000]]  # half of the cells 0 to 10
    write_areas(maps, tmp_path, "ground", [[triangle], [box(0, 11, 8, 20)]])
    found = look(maps, training_areas="ground")
    west, east = sorted(found["images"], key=lambda image: image["shape"][1], reverse=True)
    assert west["shape"] == [10, 10, 2] and east["shape"] == [8, 9, 2]
    assert west["source"] != east["source"]
    assert west["valid"] == ["#" * (9 - row) + "." * (row + 1) for row in range(10)]
    assert boxes(west) == [(1, 1, 1, 4, 4), (1, 2, 6, 3, 7)]
    assert min(west["visible"]) == pytest.approx(1 / 18)
    assert boxes(east) == [(1, 2, 0, 5, 1)] and east["first_band"][0][0] == 112
    write_areas(maps, tmp_path, "nowhere", [[box(50, 50, 60, 60)]])
    assert "No area of <nowhere@" in look(maps, training_areas="nowhere")["error"]


def test_scenes_of_common_ground_have_one_source(maps, tmp_path):
    write_areas(maps, tmp_path, "labels", [[box(1, 2, 5, 7)]])
    maps.run("g.region", "w=530", "e=560")
    maps.calc("east = 1")
    maps.run("g.region", "w=570", "e=580")
    maps.calc("far = 1")
    maps.run("g.region", "w=500", "e=600")
    found = look(maps, band1="far,red,east", band2="")
    assert [image["source"].split("@")[0] for image in found["images"]] == ["far", "red", "red"]
    assert [image["counts"] for image in found["images"]] == [[0], [1], [0]]
    maps.run("i.group", "group=both", "input=green,red")
    (image,) = look(maps, band1="", band2="", group="both")["images"]
    assert image["first_band"][0][:2] == [1, 1]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_windows_are_read_in_other_processes_too(maps, tmp_path, method):
    write_areas(maps, tmp_path, "labels", [[box(1, 2, 5, 7)]])
    one = look(maps)
    assert look(maps, processes=method) == {**one, "images": one["images"] * 4}


def test_what_detect_writes_can_be_corrected_and_used(session, tmp_path):
    session.run("g.region", "n=1000", "s=900", "w=0", "e=100", "res=1")
    session.calc("scene = 0")
    patches = [(1, 10, 10, 20, 30), (2, 40, 50, 60, 60), (3, 70, 70, 80, 80)]  # value, box
    for value, y1, x1, y2, x2 in patches:
        session.calc(
            f"scene = if(row() > {y1} && row() <= {y2} && col() > {x1} && col() <= {x2}, {value}, scene)"
        )
    request = {"scenes": [["scene"]], "outputs": ["area"]}
    session.run(sys.executable, str(DETECTION), json.dumps(request))
    options = {"band1": "scene", "band2": "", "labels": "house,tree", "classes": "house,tree"}
    (image,) = look(session, **options)["images"]
    assert boxes(image) == [(1, *patches[0][1:]), (1, *patches[2][1:]), (2, *patches[1][1:])]

    wrong = next(row["cat"] for row in session.rows("house") if float(row["score"]) == 0.53)
    session.run("v.edit", "map=house", "tool=delete", "type=centroid", f"cats={wrong}")
    added = tmp_path / "added.txt"
    added.write_text("B 5\n 5 910\n 15 910\n 15 905\n 5 905\n 5 910\nC 1 1\n 10 907\n 1 77\n")
    session.run("v.edit", "-n", "map=house", "tool=add", f"input={added}")
    error = look(session, **options)["error"]
    assert "1 object(s) of <house@" in error and "categories 77" in error
    statement = tmp_path / "row.sql"
    statement.write_text("INSERT INTO house_1 (cat, class) VALUES (77, 'house');")
    session.run("db.execute", f"input={statement}")
    found = look(session, **options)
    assert boxes(found["images"][0]) == [(1, *patches[0][1:]), (1, 90, 5, 95, 15), (2, *patches[1][1:])]
    assert any("1 area(s) of <house@" in note and "background" in note for note in found["notes"])


def no_such_map(session, tmp_path):
    return {"labels": "missing"}, "Vector map <missing> not found"


def no_areas(session, tmp_path):
    points = tmp_path / "points.txt"
    points.write_text("510|990\n")
    session.run("v.in.ascii", f"input={points}", "output=points")
    return {"labels": "points"}, "has no areas but 1 points"


def unknown_column(session, tmp_path):
    return {"class_column": "species"}, "no column 'species'; there are kind, height"


def unknown_class(session, tmp_path):
    return {"classes": "a,b"}, "'c' (<labels@"


def unclear_column(session, tmp_path):
    return {"classes": "x,y"}, "kind (a, b, c); height (1, 2, 3)"


def missing_class(session, tmp_path):
    session.run("v.db.update", "map=labels", "column=kind", "query_column=NULL", "where=height = 2")
    return {"class_column": "kind"}, "1 object(s) of <labels@"


def class_elsewhere(session, tmp_path):
    session.run("g.region", "s=988")
    return {}, "No instance of 'c'"


def no_categories(session, tmp_path):
    session.run("v.category", "input=labels", "output=bare", "option=del", "cat=-1")
    return {"labels": "bare"}, "has a category in layer 1"


@pytest.mark.parametrize(
    "spoil",
    [
        no_such_map,
        no_areas,
        unknown_column,
        unknown_class,
        unclear_column,
        missing_class,
        class_elsewhere,
        no_categories,
    ],
)
def test_faults_are_named(maps, tmp_path, spoil):
    polygons = [[box(1, 1, 4, 4)], [box(1, 6, 4, 9)], [box(8, 1, 11, 4)]]
    write_areas(maps, tmp_path, "labels", polygons, kind=list("abc"), height=[1, 2, 3])
    options, text = spoil(maps, tmp_path)
    found = look(maps, **{"classes": "a,b,c", **options})
    assert text in found.get("error", ""), found


def test_areas_without_a_table_are_of_the_only_class(maps, tmp_path):
    write_areas(maps, tmp_path, "labels", [[box(1, 1, 4, 4)]])
    maps.run("v.db.droptable", "-f", "map=labels")
    found = look(maps)
    assert found["images"][0]["counts"] == [1] and "count as 'a'" in found["notes"][0]
    assert "no column 'kind'; there are none" in look(maps, class_column="kind")["error"]


def test_areas_of_one_category_are_one_object(maps, tmp_path):
    write_areas(maps, tmp_path, "labels", [[box(1, 1, 3, 3)], [box(1, 6, 3, 8)]])
    maps.run("v.category", "input=labels", "output=bare", "option=del", "cat=-1")
    maps.run("v.category", "input=bare", "output=joined", "option=add", "step=0", "type=centroid")
    found = look(maps, labels="joined")
    assert boxes(found["images"][0]) == [(1, 1, 1, 3, 8)]
    maps.run("v.category", "input=bare", "output=apart", "option=add", "type=centroid")
    assert len(look(maps, labels="apart")["images"][0]["masks"]) == 2


def test_an_object_in_two_label_maps_is_one(maps, tmp_path):
    write_areas(maps, tmp_path, "older", [[box(1, 1, 4, 4)], [box(1, 6, 4, 9)]], kind=["a", "a"])
    write_areas(maps, tmp_path, "newer", [[box(1, 6, 4, 9)], [box(6, 1, 8, 4)]], kind=["a", "a"])
    for labels in ("older,newer", "newer,older"):
        found = look(maps, labels=labels)
        assert boxes(found["images"][0]) == [(1, 1, 1, 4, 4), (1, 1, 6, 4, 9), (1, 6, 1, 8, 4)]
        assert found["images"][0]["counts"] == [3]
        (note,) = [note for note in found["notes"] if "labelled more than once" in note]
        assert note.startswith("1 label(s)") and f"<{labels.split(',')[1]}@" in note


def test_areas_of_one_class_whatever_their_attributes_are_of_it(maps, tmp_path):
    polygons = [[box(1, 1, 4, 4)], [box(1, 6, 4, 9)], [box(6, 1, 8, 4)]]
    write_areas(maps, tmp_path, "labels", polygons, building=["yes", "house", "tank"], label=[1, 1, 1])
    found = look(maps, "roof")
    assert found["images"][0]["counts"] == [3] and "count as 'roof'" in found["notes"][0]
    found = look(maps, "roof,tank", class_values=["yes:roof", "house:roof"])
    assert found["images"][0]["counts"] == [2, 1] and not found["notes"]
    assert "class_values=house:roof" in look(maps, "roof", class_column="building")["error"]


def test_a_map_of_another_class_is_not_taken_for_the_only_class(maps, tmp_path):
    write_areas(maps, tmp_path, "roofs", [[box(1, 1, 4, 4)]], kind=["roof"])
    write_areas(maps, tmp_path, "tanks", [[box(1, 6, 4, 9)]], kind=["tank"])
    for labels in ("roofs,tanks", "tanks,roofs"):
        assert "'tank'" in look(maps, "roof", labels=labels)["error"]


def test_a_class_of_which_no_cell_shows_an_object_is_an_error_that_says_why(maps, tmp_path):
    write_areas(
        maps, tmp_path, "labels", [[box(1, 1, 4, 4)], [box(1.6, 10.6, 2.4, 11.4)]], kind=["roof", "tank"]
    )
    error = look(maps, "roof,tank")["error"]
    assert "No instance of 'tank'" in error and "category 2" in error and "too small" in error


@pytest.mark.parametrize("east", [-180, 180])
def test_areas_beyond_180_degrees_lie_on_their_cells(grass_folder, addons, tmp_path, east):
    """The maps reach from 179 to 181 degrees east; GRASS may store that as -181 to -179."""
    project = create_project(grass_folder / f"across{east}", "EPSG:4326")
    degrees = open_session(project, "PERMANENT", addons, tmp_path)
    degrees.run("g.region", "n=1", "s=-1", f"w={east - 1}", f"e={east + 1}", "res=0.1")
    degrees.calc("red = 1")

    def ring(west, south, east, north):
        return [[west, south], [east, south], [east, north], [west, north], [west, south]]

    polygons = [[ring(179.2, 0.1, 179.5, 0.4)], [ring(-179.5, -0.4, -179.2, -0.1)]]
    write_areas(degrees, tmp_path, "labels", polygons, kind=["a", "a"])
    (image,) = look(degrees, band2="")["images"]
    assert boxes(image) == [(1, 6, 2, 9, 5), (1, 11, 15, 14, 18)]
    assert image["counts"] == [2]
