"""Scenes that are damaged, empty, masked, in feet or in degrees: named where they fail, right where not."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from grass_session import create_project, open_session
from labelled_files import write_raster

DETECT = str(Path(__file__).with_name("grass_detection.py"))


def write_image(path, image, west=0.0, north=100.0, cell=1.0, crs="EPSG:32633"):
    return write_raster(path, image, crs=crs, transform=from_origin(west, north, cell, cell))


def import_image(session, path):
    session.run("r.in.gdal", f"input={path}", f"output={path.stem}", "--quiet")
    session.run("g.region", f"raster={path.stem}")


def rectangles(rows, columns, *boxes):
    """An image of objects: (first row, first column, rows, columns) each, of the class house."""
    image = np.zeros((rows, columns), np.uint8)
    for number, (row, column, height, width) in enumerate(boxes):
        image[row : row + height, column : column + width] = 1 + 2 * number
    return image


def detect(session, scenes, outputs, **request):
    path = request.pop("path", None)
    text = json.dumps({"scenes": scenes, "outputs": outputs, **request})
    done = session.run(sys.executable, DETECT, text, **({"PATH": path} if path else {}))
    return json.loads(done.stdout.splitlines()[-1])


def areas(session, name="house"):
    return sorted(float(row["area"]) for row in session.rows(name))


@pytest.fixture
def scenes(session, tmp_path):
    """Three maps with one house each, one below the other."""
    for number in range(3):
        image = rectangles(100, 80, (10, 10, 12, 20 + number))
        import_image(session, write_image(tmp_path / f"map{number}.tif", image, north=1000 - 200 * number))
    session.run("g.region", "raster=map0,map1,map2")
    return session


def truncate(session, tmp_path):
    cells = Path(session.project, session.mapset, "cell", "map1")
    cells.write_bytes(cells.read_bytes()[: cells.stat().st_size // 2])


def cut_header(session, tmp_path):
    Path(session.project, session.mapset, "cellhd", "map1").write_text("proj: 1\n")


def lose_external_file(session, tmp_path):
    session.run("g.remove", "-f", "type=raster", "name=map1")
    session.run("r.external", f"input={tmp_path / 'map1.tif'}", "output=map1")
    (tmp_path / "map1.tif").unlink()


@pytest.mark.parametrize("damage", [truncate, lose_external_file])
def test_a_map_that_cannot_be_read_is_named(scenes, tmp_path, damage):
    damage(scenes, tmp_path)
    result = detect(scenes, [["map0"], ["map1"], ["map2"]], ["area", "raster"])
    full = [f"map{number}@{scenes.mapset}" for number in range(3)]
    assert f"GRASS can't read scene {full[1]}: " in result["errors"][full[1]]
    assert "map1" in result["errors"][full[1]].split(": ", 1)[1], "what the C library said is told"
    assert result["errors"][full[0]] is None and result["errors"][full[2]] is None
    assert areas(scenes) == [12 * 20, 12 * 22]
    assert {row["source"] for row in scenes.rows("house")} == {full[0], full[2]}


def test_a_map_whose_description_is_damaged_is_an_error_of_its_scene(scenes, tmp_path):
    cut_header(scenes, tmp_path)
    code = """
import json
from ann.grass.reader import READER, DamagedMapError
texts = []
for name in ("map0", "map1", "map2"):
    try:
        texts.append(str(READER.find_bands([name])[0]))
    except DamagedMapError as error:
        texts.append(str(error))
print(json.dumps(texts))
"""
    first, damaged, last = scenes.python_value(code)
    assert first == f"map0@{scenes.mapset}" and last == f"map2@{scenes.mapset}"
    assert damaged.startswith("GRASS can't read map1: ")


def test_the_reading_process_gives_what_the_maps_hold_and_ends_with_its_owner(scenes):
    code = """
import json, os
import numpy as np
from ann.grass.bands import MapScene
from ann.grass.reader import READER
from ann.grass.region import computational_region
bands = READER.find_bands(["map2"])
with MapScene(bands, extent=computational_region()) as own:
    there = own.read(3, 5, 40, 30)
with READER.scene(bands, own.grid, own.name) as scene:
    sent = scene.read(3, 5, 40, 30)
same = all((a == b).all() and a.dtype == b.dtype for a, b in zip(there, sent))
print(json.dumps([bool(same), int(sent[0].sum()), READER._process.pid]))
"""
    same, total, process = scenes.python_value(code)
    assert same and total == 12 * 22
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_command_that_fails_ends_one_scene_and_leaves_nothing_of_it(scenes, tmp_path):
    # r.to.vect fails once, at the second class of the first scene
    image = rectangles(100, 80, (10, 10, 12, 20), (40, 10, 12, 20))
    image[image == 3] = 2  # a tree
    import_image(scenes, write_image(tmp_path / "both.tif", image, north=-1000))
    scenes.run("g.region", "raster=map0,map1,map2,both")
    real = scenes.run("which", "r.to.vect").stdout.strip()
    count = tmp_path / "count"
    folder = tmp_path / "first"
    folder.mkdir()
    program = folder / "r.to.vect"
    program.write_text(
        f"#!/bin/sh\necho >> {count}\n"
        f"[ $(wc -l < {count}) = 2 ] && exec {real} input=nowhere output=x type=area\n"
        f'exec {real} "$@"\n'
    )
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{scenes.variables['PATH']}"
    result = detect(scenes, [["both"], ["map1"]], ["area", "raster"], path=path)
    failed, good = (f"{name}@{scenes.mapset}" for name in ("both", "map1"))
    assert result["errors"][failed] == "r.to.vect failed with exit code 1, see the messages above"
    assert result["errors"][good] is None
    assert areas(scenes) == [12 * 21] and scenes.topology("house")["areas"] == 1
    assert scenes.rows("tree") == [] and scenes.topology("tree")["areas"] == 0
    assert not [name for name in scenes.maps() if name.startswith("tmp_")]


def test_a_scene_without_any_cell_with_data_is_reported(scenes):
    scenes.calc("empty = null()")
    result = detect(scenes, [["empty"], ["map1"]], ["area", "raster"])
    assert "no cell has data" in result["errors"][f"empty@{scenes.mapset}"]
    assert areas(scenes) == [12 * 21]


def test_tiles_without_data_are_counted(scenes):
    scenes.calc("low = if(row() <= 200 || row() > 300, null(), map1)")
    (tiles,) = detect(scenes, [["low"]], ["area"])["tiles"]
    assert tiles[0] > tiles[1] > 0


@pytest.mark.parametrize("resolution", [None, 2.0, 3.0, 0.4])
def test_the_mask_counts_once_whatever_the_resolution(session, tmp_path, resolution):
    import_image(session, write_image(tmp_path / "map.tif", rectangles(96, 96, (20, 20, 24, 24))))
    session.calc("inside = if(row() > 30 && row() <= 32 && col() > 21 && col() <= 38, null(), 1)")
    session.run("r.mask", "raster=inside")
    more = {} if resolution is None else {"resolution": resolution}
    detect(session, [["map"]], ["area", "raster"], confidence=0.1, **more)
    session.run("r.mask", "-r")
    session.run("g.region", "raster=instances")
    table = {int(row["cat"]): float(row["area"]) for row in session.rows("house")}
    lines = session.out("v.to.db", "-p", "map=house", "option=area").splitlines()
    drawn = {int(line.split("|")[0]): float(line.split("|")[1]) for line in lines if line[:1].isdigit()}
    cells = session.out("r.stats", "-an", "input=instances").split()
    counted = dict(zip(map(int, cells[::2]), map(float, cells[1::2]), strict=True))
    assert table and drawn == pytest.approx(table) and counted == pytest.approx(table)


@pytest.fixture(scope="module")
def feet(grass_folder):
    return create_project(grass_folder / "feet", "EPSG:2240")


@pytest.fixture(scope="module")
def degrees(grass_folder):
    return create_project(grass_folder / "circle", "EPSG:4326")


def test_areas_are_in_squared_map_units_in_feet(feet, addons, tmp_path):
    session = open_session(feet, "PERMANENT", addons, tmp_path)
    for name, west in (("one", 2_000_000), ("two", 2_000_080)):
        image = rectangles(100, 120, (10, 30, 20, 28))
        import_image(session, write_image(tmp_path / f"{name}.tif", image, west, 500_000, 2.0, "EPSG:2240"))
    session.run("g.region", "raster=one,two")
    wanted = 20 * 28 * 4
    detect(session, [["one"]], ["area", "point"])
    assert areas(session) == areas(session, "house_points") == [wanted]
    detect(session, [["one"]], ["area"], prefix="simple_", generalize=0.1)
    assert areas(session, "simple_house") == pytest.approx([wanted])
    detect(session, [["one"], ["two"]], ["area"], prefix="both_")
    assert areas(session, "both_house") == pytest.approx([wanted, wanted])


SIZE = """
import json, sys
from maskrcnn.config import MaskRCNNConfig
from ann.grass.region import Grid
from ann.grass.sources import Source, pixel_size_warning
config = MaskRCNNConfig(classes=("house",), pixel_size=0.5)
for height, width, north, resolution in json.loads(sys.argv[1]):
    grid = Grid(north=north, west=15.0, rows=10, columns=10, row_size=height, column_size=width)
    print(json.dumps(pixel_size_warning(Source(name="map", grid=grid), config, resolution)))
"""


def size_warnings(session, *cells):
    done = session.python(SIZE, json.dumps([list(one) for one in cells]))
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_advice_on_resolution_is_in_the_units_of_the_project(session, feet, degrees, addons, tmp_path):
    fit, fine, advised, uneven = size_warnings(
        session, (0.5, 0.5, 0, None), (0.1, 0.1, 0, None), (0.1, 0.1, 0, 0.5), (0.1, 0.2, 0, None)
    )
    assert fit is None and advised is None
    assert "0.1 m large on the ground, the model was trained on 0.5 m" in fine
    assert "too large to it; try resolution=0.5 (met" in fine
    assert "resolution=" not in uneven and "r.resamp.interp" in uneven

    session = open_session(feet, "PERMANENT", addons, tmp_path)
    fit, fine, advised = size_warnings(
        session, (1.640417, 1.640417, 0, None), (0.5, 0.5, 0, None), (0.5, 0.5, 0, 1.64042)
    )
    assert fit is None and advised is None
    assert "0.152 m large" in fine and "try resolution=1.64042 (U" in fine and "eet)" in fine

    session = open_session(degrees, "PERMANENT", addons, tmp_path)
    half = 0.5 / 110_947  # degrees on the equator
    fit, coarse, advised, north = size_warnings(
        session, (half, half, 0, None), (1e-4, 1e-4, 0, None), (1e-4, 1e-4, 0, half), (half, half, 75.0, None)
    )
    assert fit is None and advised is None
    assert "11.1 m large" in coarse and "try resolution=4.50" in coarse and "e-06 (degrees)" in coarse
    assert "0.256 m large" in north


def test_without_a_coordinate_system_nothing_is_said_of_sizes(grass_folder, addons, tmp_path):
    project = create_project(grass_folder / "plain", "XY")
    session = open_session(project, "PERMANENT", addons, tmp_path)
    assert size_warnings(session, (1.0, 1.0, 0, None)) == [None]


VALUES = """
import json, sys
from maskrcnn.config import MaskRCNNConfig
from ann.grass.bands import find_bands
from ann.grass.region import computational_region
from ann.grass.sources import map_source, values_warning
config = MaskRCNNConfig(classes=("house",), band_mean=(120.0,), band_scale=(50.0,))
names, extent = sys.argv[1].split(","), computational_region()
print(json.dumps(values_warning([map_source(find_bands([name]), extent) for name in names], config)))
"""


def test_values_far_from_those_of_training_are_told_before_the_work(session):
    session.run("g.region", "n=100", "s=0", "w=0", "e=90", "res=1")
    session.calc("photo = int(127 + 127 * sin(row() * 7) * cos(col() * 11))")
    session.calc("deep = photo * 257")
    session.calc("share = photo / 255.")
    session.calc("empty = null()")
    assert session.python_value(VALUES, "photo,empty") is None
    for name in ("deep", "share"):
        text = session.python_value(VALUES, f"photo,{name}")
        assert text.startswith(
            f"Values of {name}@{session.mapset} are far from those of training: band 1 has"
        )
        assert "trained on 120 on average with a deviation of 50" in text and "r.rescale" in text


@pytest.fixture
def circle(degrees, addons, tmp_path, request):
    """A map of the whole earth in cells of 3 degrees: a house at 60 degrees, one across 180."""
    session = open_session(degrees, "PERMANENT", addons, tmp_path)
    image = rectangles(60, 120, (20, 80, 6, 10))
    image[40:46, :4] = image[40:46, -4:] = 5
    if "earth" not in session.maps("raster"):
        import_image(session, write_image(tmp_path / "earth.tif", image, -180, 90, 3, "EPSG:4326"))
        import_image(session, write_image(tmp_path / "pacific.tif", rectangles(20, 40, (5, 10, 6, 20)),
                                          150, 30, 1.5, "EPSG:4326"))  # fmt: skip
    return session


@pytest.mark.parametrize(
    ("longitudes", "count"),
    [(("-180", "180"), 3), (("0", "360"), 3), (("90", "270"), 1), (("170", "190"), 1)],
)
def test_a_map_of_the_whole_earth_is_read_whichever_way_longitudes_are_counted(circle, longitudes, count):
    west, east = longitudes
    circle.run("g.region", "n=90", "s=-90", f"w={west}", f"e={east}", "res=3")
    result = detect(circle, [["earth"]], ["area", "raster"], prefix=f"from{west.replace('-', 'm')}_{east}_")
    assert result["errors"] == {"earth@PERMANENT": None} and result["counts"][0]["1"] == count


@pytest.mark.parametrize("longitudes", [("-180", "180"), ("0", "360"), ("150", "210"), ("-210", "-150")])
def test_a_map_across_180_degrees_is_read_whole(circle, longitudes):
    west, east = longitudes
    circle.run("g.region", "n=30", "s=0", f"w={west}", f"e={east}", "res=1.5")
    prefix = f"p{west}_{east}_".replace("-", "m")
    result = detect(circle, [["pacific"]], ["area"], prefix=prefix)
    assert result["counts"][0]["1"] == 1
    assert circle.topology(f"{prefix}house")["areas"] == 1
    (area,) = areas(circle, f"{prefix}house")
    assert area == pytest.approx(120 * (1.5 * 111_000) ** 2 * np.cos(np.radians(18)), rel=0.02)


def test_both_ends_of_a_map_without_its_middle_are_refused_with_what_to_do(circle):
    circle.run("g.region", "n=30", "s=0", "w=-175", "e=175", "res=1.5")
    code = """
from ann.grass.bands import find_bands
from ann.grass.region import computational_region
from ann.grass.sources import map_source
map_source(find_bands(["pacific"]), computational_region())
"""
    done = circle.python(code, check=False)
    assert done.returncode and "but not its middle" in done.stderr and "g.region raster=" in done.stderr


FILES = """
import json, sys
from maskrcnn.config import MaskRCNNConfig
from ann.errors import SceneError
from ann.grass.files import find_images, find_sidecars
from ann.grass.sources import file_source
config = MaskRCNNConfig(classes=("house",), band_mean=(1.0,), band_scale=(1.0,))
try:
    images = find_images(sys.argv[1], None)
    beside = find_sidecars(images) if "-e" in sys.argv else {}
    found = []
    for path in images:
        grid = file_source(str(path), config, beside.get(path)).grid
        found.append([path.name, grid.west, grid.north, grid.column_size])
    print(json.dumps(found))
except SceneError as error:
    print(json.dumps(str(error)))
"""
EAST = "1\n0\n0\n-1\n501000.5\n5499999.5\n"  # a world file: centre of the first pixel
PAM = "<PAMDataset><GeoTransform> 501000, 1, 0, 5500000, 0, -1</GeoTransform></PAMDataset>"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    write_image(folder / "a.tif", np.ones((9, 10), np.uint8), 500_000, 5_500_000)
    return folder


@pytest.mark.parametrize("name", ["a.tfw", "a.tifw", "a.wld", "A.TFW", "a.tif.aux.xml"])
def test_files_beside_an_image_are_what_places_it(session, photos, name):
    (photos / name).write_text(PAM if name.endswith("xml") else EAST)
    assert session.python_value(FILES, str(photos), "-e") == [["a.tif", 501_000, 5_500_000, 1]]


def test_without_the_flag_the_image_itself_says_where_it_lies(session, photos):
    (photos / "a.tfw").write_text(EAST)
    assert session.python_value(FILES, str(photos)) == [["a.tif", 500_000, 5_500_000, 1]]


def test_files_beside_an_image_that_differ_or_say_nothing_are_errors(session, photos):
    (photos / "a.tfw").write_text(EAST.replace("501000.5", "502000.5"))
    (photos / "a.tif.aux.xml").write_text(PAM)
    text = session.python_value(FILES, str(photos), "-e")
    assert "a.tfw at 502000, 5500000, a.tif.aux.xml at 501000, 5500000" in text
    (photos / "a.tfw").unlink()
    (photos / "a.tif.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    text = session.python_value(FILES, str(photos), "-e")
    assert "a.tif.aux.xml has no <GeoTransform>" in text and "a.tfw or a.tifw or a.wld" in text
    (photos / "a.wld").write_text("1 0 0\n")
    assert "a.wld can't be read" in session.python_value(FILES, str(photos), "-e")


def test_the_image_without_such_a_file_is_named_with_what_it_may_be(session, photos):
    (photos / "a.tfw").write_text(EAST)
    write_image(photos / "b.tif", np.ones((9, 10), np.uint8))
    text = session.python_value(FILES, str(photos), "-e")
    assert "beside b.tif." in text and "(b.tfw or b.tifw or b.wld) or b.tif.aux.xml" in text


def test_hidden_files_are_no_scenes(session, photos):
    for name in ("._a.tif", ".thumbnail.png"):
        (photos / name).write_bytes((photos / "a.tif").read_bytes())
    assert [one[0] for one in session.python_value(FILES, str(photos))] == ["a.tif"]
    (photos / "a.tif").unlink()
    assert "It holds no files" in session.python_value(FILES, str(photos))
