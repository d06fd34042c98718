"""Detections as maps: areas, points, rasters and their tables, and nothing left behind."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from grass_session import create_project, open_session
from labelled_files import write_raster

DETECT = str(Path(__file__).with_name("grass_detection.py"))
CELL = 2.0  # map units

# row, column, height, width, value; the first two touch each other, the next two lie across borders of tiles
OBJECTS = [
    (4, 6, 10, 12, 1),
    (4, 18, 10, 12, 2),
    (58, 50, 20, 24, 3),
    (80, 20, 6, 28, 4),
    (70, 95, 9, 5, 5),
]
ROWS, COLUMNS = 100, 120


def draw(objects, rows=ROWS, columns=COLUMNS):
    image = np.zeros((rows, columns), np.uint8)
    for row, column, height, width, value in objects:
        image[row : row + height, column : column + width] = value
    return image


def import_image(session, tmp_path, name, image, west=0.0, north=ROWS * CELL):
    path = tmp_path / f"{name}.tif"
    write_image(path, image, west, north)
    session.run("r.in.gdal", f"input={path}", f"output={name}", "--quiet")


def write_image(path, image, west=0.0, north=ROWS * CELL, cell=CELL, crs="EPSG:32633"):
    return write_raster(path, image, crs=crs, transform=from_origin(west, north, cell, cell))


def detect(session, scenes, outputs, check=True, **request):
    more = {"GRASS_OVERWRITE": "1"} if request.pop("overwrite", False) else {}
    text = json.dumps({"scenes": scenes, "outputs": outputs, **request})
    done = session.run(sys.executable, DETECT, text, check=check, **more)
    return json.loads(done.stdout.splitlines()[-1]) if check else done


@pytest.fixture
def scene(session, tmp_path):
    """A session with the map <scene>, and the region on it."""
    import_image(session, tmp_path, "scene", draw(OBJECTS))
    session.run("g.region", "raster=scene")
    return session


def use_dbf(session):
    folder = Path(session.project, session.mapset, "dbf")
    folder.mkdir()
    session.run("db.connect", "driver=dbf", f"database={folder}")


def overlay(session, vector, raster_values):
    """Cells of a raster map by the categories of the areas that cover them: {(category, value): cells}."""
    session.run("v.to.rast", f"input={vector}", "output=back", "use=cat", "--overwrite", "--quiet")
    lines = session.out("r.stats", "-cn", f"input=back,{raster_values}").splitlines()
    return {tuple(map(int, line.split()[:2])): int(line.split()[2]) for line in lines}


def test_all_kinds_of_maps_show_the_same_objects(scene):
    result = detect(scene, [["scene"]], ["area", "point", "raster", "class", "score"])
    assert set(result["maps"]) == {
        *("house", "tree", "house_points", "tree_points"),
        *("instances", "classes", "scores"),
    }
    assert scene.maps() == {"scene", *result["maps"]}

    expected = {"house": [1, 3, 5], "tree": [2, 4]}
    sizes = {value: height * width for _, _, height, width, value in OBJECTS}
    for name, values in expected.items():
        rows = scene.rows(name)
        assert [float(row["score"]) for row in rows] == pytest.approx([0.5 + v / 100 for v in values])
        assert [float(row["area"]) for row in rows] == [sizes[value] * CELL**2 for value in values]
        assert {row["class"] for row in rows} == {name}
        assert {row["source"] for row in rows} == {f"scene@{scene.mapset}"}
        topology = scene.topology(name)
        assert topology["areas"] == topology["centroids"] == len(values)
        assert scene.topology(f"{name}_points")["points"] == len(values)
        assert scene.rows(f"{name}_points") == rows
        covered = overlay(scene, name, "instances")
        assert sorted(covered.values()) == sorted(sizes[value] for value in values)
        assert all(category == value for category, value in covered)

    points = scene.out("v.what.rast", "-p", "map=house_points", "raster=instances").split()
    assert all(line.split("|")[0] == line.split("|")[1] for line in points)
    cells = scene.out("r.stats", "-cn", "input=instances,classes,scene").splitlines()
    found = {tuple(map(int, line.split()[1:])) for line in cells}
    assert found == {(1 + (value - 1) % 2, value, size) for value, size in sizes.items()}
    assert "1\thouse 0.510" in scene.out("r.category", "map=instances").splitlines()
    assert scene.out("r.category", "map=classes").split() == ["1", "house", "2", "tree"]
    statistics = scene.values("r.univar", "-g", "map=scores")
    assert float(statistics["min"]) == pytest.approx(0.51) and float(statistics["max"]) == pytest.approx(0.55)
    assert scene.region()["rows"] == str(ROWS)


def test_topology_is_clean_and_the_history_tells_the_command(scene):
    detect(scene, [["scene"]], ["area", "raster"], classes=["all", "rest"], prefix="x_")
    for name in ("x_all", "x_rest"):
        errors = scene.run("v.build", f"map={name}", "option=build", "error=errors", "--overwrite")
        assert "errors" not in scene.maps() or not scene.topology("errors")["primitives"], errors.stderr
        assert "grass_detection.py" in scene.out("v.info", "-h", f"map={name}")
    assert "grass_detection.py" in scene.out("r.info", "-h", "map=x_instances")


def test_holes_and_null_cells_are_not_covered(session, tmp_path):
    image = draw([(4, 6, 20, 24, 1)])
    import_image(session, tmp_path, "full", image)
    session.run("g.region", "raster=full")
    session.calc("scene = if(row() > 10 && row() < 15 && col() > 12 && col() < 20, null(), full)")
    result = detect(session, [["scene"]], ["area"])
    assert result["maps"]["house"] == 1
    (row,) = session.rows("house")
    assert float(row["area"]) == (20 * 24 - 4 * 7) * CELL**2
    assert overlay(session, "house", "full") == {(1, 1): 20 * 24 - 4 * 7}


def test_the_mask_limits_maps_and_stays(scene):
    scene.calc("inside = if(col() < 40, 1, null())")
    scene.run("r.mask", "raster=inside")
    before = scene.out("r.info", "-g", "map=MASK")
    result = detect(scene, [["scene"]], ["area", "raster"])
    assert result["maps"] == {"house": 1, "tree": 2, "instances": None}
    assert scene.out("r.info", "-g", "map=MASK") == before
    assert [float(row["area"]) for row in scene.rows("tree")] == [120 * CELL**2, 6 * 19 * CELL**2]


def test_neither_region_nor_mask_limits_image_files(session, tmp_path):
    write_image(tmp_path / "photo.tif", draw(OBJECTS))
    session.run("g.region", "n=10", "s=0", "w=0", "e=10", "res=1")
    session.calc("nowhere = 1")
    session.run("r.mask", "raster=nowhere")
    before = session.region()
    result = detect(session, [str(tmp_path / "photo.tif")], ["area", "point", "raster", "class"])
    assert result["maps"]["house"] == 3 and result["maps"]["tree_points"] == 2
    assert session.topology("house")["areas"] == 3
    assert session.region() == before
    assert not [path for path in session.project.iterdir() if path.name.startswith("tmp_")]
    session.run("r.mask", "-r")
    session.run("g.region", "raster=classes")
    assert session.values("r.univar", "-g", "map=classes")["n"] == str(
        sum(height * width for _, _, height, width, _ in OBJECTS)
    )


def test_a_class_without_detections_gets_an_empty_map_with_a_table(scene):
    result = detect(scene, [["scene"]], ["area", "point"], classes=["house", "tree", "boat"])
    assert result["maps"]["boat"] == result["maps"]["boat_points"] == 0
    assert scene.rows("boat") == [] and scene.topology("boat")["areas"] == 0


def test_no_detection_at_all_gives_empty_maps(scene):
    result = detect(scene, [["scene"]], ["area", "point", "raster", "class", "score"], confidence=0.99)
    assert {name for name, count in result["maps"].items() if count is not None} == {
        *("house", "tree", "house_points", "tree_points")
    }
    assert scene.values("r.univar", "-g", "map=instances")["n"] == "0"
    assert scene.rows("house") == []


def test_scenes_side_by_side_share_one_map_per_class(scene, tmp_path):
    # An object goes on across the common border: it is one feature, and one category in both rasters.
    import_image(scene, tmp_path, "west", draw([(10, 100, 8, 20, 1)]), west=0.0)
    import_image(scene, tmp_path, "east", draw([(10, 0, 8, 20, 1), (50, 50, 8, 20, 3)]), west=COLUMNS * CELL)
    scene.run("g.region", "raster=west,east")
    result = detect(scene, [["west"], ["east"]], ["area", "raster"])
    assert result["maps"]["house"] == 2
    rows = scene.rows("house")
    assert [row["cat"] for row in rows] == ["1", "2"]
    assert [row["source"].split("@")[0] for row in rows] == ["west", "east"]
    assert [float(row["area"]) / CELL**2 for row in rows] == [2 * 8 * 20, 8 * 20]
    topology = scene.topology("house")
    assert topology["areas"] == topology["centroids"] == 2
    assert {"instances_west", "instances_east"} <= set(result["maps"])
    assert scene.values("r.info", "-r", "map=instances_west") == {"min": "1", "max": "1"}
    assert scene.values("r.info", "-r", "map=instances_east") == {"min": "1", "max": "2"}
    assert sum(counts["1"] for counts in result["counts"]) == 2


def test_an_object_that_two_overlapping_scenes_show_is_one_feature(scene, tmp_path):
    # 40 columns are shared; the object in them is drawn one column wider in the second scene.
    import_image(scene, tmp_path, "west", draw([(10, 90, 8, 20, 1), (40, 4, 8, 9, 3)]), west=0.0)
    import_image(scene, tmp_path, "east", draw([(10, 10, 8, 21, 1), (60, 70, 8, 9, 5)]), west=80 * CELL)
    scene.run("g.region", "raster=west,east")
    result = detect(scene, [["west"], ["east"]], ["area"])
    assert result["maps"]["house"] == 3
    assert sorted(float(row["area"]) / CELL**2 for row in scene.rows("house")) == [72, 72, 160]
    topology = scene.topology("house")
    assert topology["areas"] == topology["centroids"] == 3


def test_scenes_that_disagree_on_an_object_have_it_once_in_all_maps_and_counts(scene, tmp_path):
    # the first scene calls it a house (0.51), the second a tree (0.52); and one crosses the first one's edge
    import_image(scene, tmp_path, "west", draw([(10, 90, 8, 20, 1), (60, 100, 12, 20, 3)]), west=0.0)
    import_image(scene, tmp_path, "east", draw([(10, 10, 8, 20, 2), (60, 20, 12, 28, 3)]), west=80 * CELL)
    scene.run("g.region", "raster=west,east")
    result = detect(scene, [["west"], ["east"]], ["area", "point", "raster", "class"])
    assert {name: result["maps"][name] for name in ("house", "tree", "house_points", "tree_points")} == {
        **{"house": 1, "tree": 1, "house_points": 1, "tree_points": 1}
    }
    assert result["counts"] == [{"1": 0, "2": 0}, {"1": 1, "2": 1}]
    (house,), (tree,) = scene.rows("house"), scene.rows("tree")
    assert [float(row["area"]) / CELL**2 for row in (house, tree)] == [12 * 28, 8 * 20]
    for name in ("house", "tree"):
        assert scene.topology(name)["areas"] == scene.topology(name)["centroids"] == 1
    for row in (house, tree):
        assert overlay(scene, row["class"], "instances_east")[int(row["cat"]), int(row["cat"])]
    # the first scene shows its part of each under the same categories
    scene.run("g.region", "raster=west")
    cells = {}
    for line in scene.out("r.stats", "-cn", "input=instances_west,classes_west").splitlines():
        category, class_id, count = map(int, line.split())
        cells[category] = (class_id, count)
    assert cells == {int(house["cat"]): (1, 12 * 20), int(tree["cat"]): (2, 8 * 20)}


def test_image_files_of_other_pixel_sizes_show_an_object_once(session, tmp_path):
    image = np.zeros((60, 60), np.uint8)
    image[20:40, 30:44] = 1
    write_image(tmp_path / "fine.tif", image)
    coarse = np.zeros((30, 30), np.uint8)
    coarse[10:20, 10:17] = 3
    # its north-west corner lies 10 fine cells to the right of that of the fine one, half a cell up
    write_image(tmp_path / "coarse.tif", coarse, west=10 * CELL, north=ROWS * CELL + 1.0, cell=2 * CELL)
    session.run("g.region", "n=200", "s=0", "w=0", "e=200", "res=2")
    result = detect(session, [str(tmp_path / "fine.tif"), str(tmp_path / "coarse.tif")], ["area", "raster"])
    assert result["maps"]["house"] == 1
    (row,) = session.rows("house")
    assert row["source"] == "coarse.tif" and float(row["area"]) == 20 * 14 * CELL**2
    assert session.topology("house")["areas"] == 1


def test_outlines_can_be_generalized_and_areas_are_measured_again(session, tmp_path):
    image = np.zeros((60, 60), np.uint8)
    image[10:30, 10:30] = 1
    import_image(session, tmp_path, "scene", image)
    session.run("g.region", "raster=scene")
    detect(session, [["scene"]], ["area"], generalize=3.0)
    (row,) = session.rows("house")
    assert float(row["area"]) == pytest.approx(20 * 20 * CELL**2, rel=0.1)
    assert session.topology("house")["areas"] == 1


def test_certainty_is_in_the_table_and_windows_are_ranked(session, tmp_path):
    import_image(session, tmp_path, "one", draw(OBJECTS))
    beside = draw([(58, 0, 20, 24, 3), (20, 90, 10, 12, 1)])  # shows an object of the first scene, too
    import_image(session, tmp_path, "two", beside, west=50 * CELL)
    session.run("g.region", "raster=one,two")
    result = detect(session, [["one"], ["two"]], ["area", "point"], turns=True, label_next="next")
    rows = session.rows("house") + session.rows("tree_points")
    assert {row["votes"] for row in rows} == {"8"}
    assert [float(row["spread"]) for row in rows] == pytest.approx([0.0] * len(rows), abs=1e-6)
    windows = session.rows("next")
    assert result["maps"]["next"] == len(windows) >= 3
    assert [row["cat"] for row in windows] == [row["rank"] for row in windows]
    doubts = [float(row["uncertainty"]) for row in windows]
    assert doubts == sorted(doubts, reverse=True) and doubts[-1] > 0
    assert {row["source"].partition("@")[0] for row in windows} == {"one", "two"}
    topology = session.topology("next")
    assert len(windows) <= topology["centroids"] == topology["areas"]


def test_outlines_become_right_angled_with_clean_topology(session, tmp_path):
    image = draw([(10, 10, 20, 26, 1), (40, 60, 24, 20, 2), (40, 80, 24, 20, 3)])
    image[10, 20:22] = image[29, 30] = image[15, 10] = 0  # bites
    image[50:54, 80] = 2  # a crooked wall between neighbours of two classes
    import_image(session, tmp_path, "scene", image)
    session.run("g.region", "raster=scene")
    detect(session, [["scene"]], ["area"], regularize=3.0)
    for name, count in {"house": 2, "tree": 1}.items():
        topology = session.topology(name)
        assert topology["areas"] == topology["centroids"] == len(session.rows(name)) == count
    corners = session.out("v.out.ascii", "input=house", "type=boundary", "format=wkt").splitlines()
    assert [line.count(",") for line in corners] == [4, 4]
    first = next(row for row in session.rows("house") if row["cat"] == "1")
    assert float(first["area"]) == pytest.approx(20 * 26 * CELL**2)  # measured again, without the bites
    session.run("v.overlay", "ainput=house", "binput=tree", "operator=and", "output=both")
    assert session.topology("both")["areas"] == 0


def test_resolution_resamples_the_scene_and_the_instance_map(scene):
    detect(scene, [["scene"]], ["area", "raster"], resolution=1.0)
    information = scene.values("r.info", "-g", "map=instances")
    assert (information["rows"], information["cols"], information["nsres"]) == ("200", "240", "1")
    covered = sum(float(row["area"]) for name in ("house", "tree") for row in scene.rows(name))
    scene.run("g.region", "raster=instances")
    assert covered == float(scene.values("r.univar", "-g", "map=instances")["n"])  # cells of 1 x 1 map units
    drawn = sum(height * width for _, _, height, width, _ in OBJECTS) * CELL**2
    assert covered == pytest.approx(drawn, rel=0.25)


def test_an_existing_map_is_replaced_with_its_table(scene):
    detect(scene, [["scene"]], ["area"])
    detect(scene, [["scene"]], ["area"], confidence=0.535, overwrite=True)
    assert len(scene.rows("house")) == 1 and scene.rows("tree")[0]["cat"] == "2"
    assert len(scene.out("db.tables", "-p").split()) == 2


NAMES = ["order", "Nothing", "escape", "AND", "int", "O'Neill; barn", "\\", "é 木", "c" * 255]


@pytest.mark.parametrize("driver", ["sqlite", "dbf"])
def test_class_names_may_be_anything(scene, driver):
    if driver == "dbf":
        use_dbf(scene)
    result = detect(scene, [["scene"]], ["point"], classes=NAMES)
    assert not result["failures"]
    for name, vector in zip(NAMES, result["maps"], strict=True):
        rows = scene.rows(vector)
        if name in NAMES[:2]:  # the classes that are found
            assert {row["class"] for row in rows} == {name}
        assert len(rows) == {NAMES[0]: 3, NAMES[1]: 2}.get(name, 0)


@pytest.mark.parametrize("name", ["O'Neill; barn", "road|path", "a:b\tc", "\\ é 木"])
def test_texts_of_class_names_survive_in_tables_and_labels(scene, name):
    result = detect(scene, [["scene"]], ["point", "raster", "class"], classes=[name, "tree"])
    shown = " ".join(name.split())
    first = next(iter(result["maps"]))
    where = json.loads(scene.out("v.db.select", f"map={first}", "format=json"))
    assert {row["class"] for row in where["records"]} == {shown}
    assert f"1\t{shown} 0.510" in scene.out("r.category", "map=instances").splitlines()
    assert f"1\t{shown}" in scene.out("r.category", "map=classes").splitlines()


def test_classes_whose_names_end_alike_have_tables_of_their_own(scene):
    detect(scene, [["scene"]], ["point"], classes=["select_", "select"])
    assert {row["class"] for row in scene.rows("select_")} == {"select_"}
    assert {row["class"] for row in scene.rows("select")} == {"select"}


@pytest.mark.parametrize(
    "failure",
    [{"interrupt": "SIGINT"}, {"interrupt": "SIGTERM"}, {"fail_before_finish": 1}, {"c_library_fails": 1}],
)
def test_nothing_stays_after_errors_and_interruptions(scene, failure):
    before = scene.region()
    done = detect(scene, [["scene"]], ["area", "raster", "class"], check=False, **failure)
    assert done.returncode
    assert scene.maps() == {"scene"} and scene.region() == before


def test_what_a_killed_process_left_is_removed_by_the_next_run(scene):
    done = detect(scene, [["scene"]], ["raster"], check=False, interrupt="SIGKILL")
    assert done.returncode == -9
    from_dead_process = "from ann.grass.temporary import unique_name; print(unique_name('areas_1'))"
    name = scene.python(from_dead_process).stdout.strip()
    scene.calc(f"{name} = 1")
    detect(scene, [["scene"]], ["point"])
    assert scene.maps("raster") == {"scene"}


def test_in_degrees_areas_are_in_square_metres(grass_folder, addons, tmp_path):
    project = create_project(grass_folder / "degrees", "EPSG:4326")
    session = open_session(project, "PERMANENT", addons, tmp_path)
    cell, latitude = 1e-5, 50.0  # degrees
    write_image(tmp_path / "scene.tif", draw(OBJECTS), 14.0, latitude, cell, "EPSG:4326")
    session.run("r.in.gdal", f"input={tmp_path / 'scene.tif'}", "output=scene", "--quiet")
    session.run("g.region", "raster=scene")
    detect(session, [["scene"]], ["area", "point"])
    # WGS 84: radii of curvature along the meridian and across it
    squared_eccentricity, sine = 0.00669438, np.sin(np.radians(latitude))
    across = 6378137 / np.sqrt(1 - squared_eccentricity * sine**2)
    along = across * (1 - squared_eccentricity) / (1 - squared_eccentricity * sine**2)
    cell_area = along * across * np.cos(np.radians(latitude)) * np.radians(cell) ** 2
    cells = [height * width for _, _, height, width, value in OBJECTS if value % 2]
    for name in ("house", "house_points"):
        areas = [float(row["area"]) for row in session.rows(name)]
        assert areas == pytest.approx([count * cell_area for count in cells], rel=1e-3)


def test_tables_in_dbf_files_have_all_columns(scene):
    use_dbf(scene)
    detect(scene, [["scene"]], ["area", "point"])
    sizes = {value: height * width * CELL**2 for _, _, height, width, value in OBJECTS}
    for name in ("house", "house_points"):
        rows = scene.rows(name)
        assert [float(row["area"]) for row in rows] == [sizes[value] for value in (1, 3, 5)]
        assert [float(row["score"]) for row in rows] == pytest.approx([0.51, 0.53, 0.55])
        assert {(row["class"], row["source"]) for row in rows} == {("house", f"scene@{scene.mapset}")}
    assert not list(Path(scene.project, scene.mapset).glob("sqlite/*"))
