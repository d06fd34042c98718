"""i.ann.maskrcnn.detect as installed: bad input ends early and clearly, good input ends in maps."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from grass_session import create_mapset, open_session


@pytest.fixture(scope="module")
def module_project(project, installed, grass_folder):
    """A mapset with three bands of 100 x 90 cells and one of another extent."""
    create_mapset(project, "imagery")
    session = open_session(project, "imagery", installed, grass_folder)
    session.run("g.region", "n=100", "s=0", "w=0", "e=90", "res=1")
    for number, name in enumerate(("red", "green", "blue"), 1):
        session.calc(f"{name} = int(127 + 127 * sin(row() * {7 * number}) * cos(col() * 11))")
    session.run("i.group", "group=bands", "input=red,green,blue")
    session.run("i.group", "group=two", "input=red,green")
    session.run("g.region", "n=100", "s=50", "w=0", "e=90", "res=1")
    session.calc("short = 1")
    return session


@pytest.fixture
def user(request, module_project, project, installed, grass_folder):
    """A mapset of this test's own, that sees the imagery; its region has coarse cells."""
    name = f"user_{abs(hash(request.node.name))}"
    create_mapset(project, name)
    session = open_session(project, name, installed, grass_folder)
    session.variables["PYTHONPATH"] = session.variables["PYTHONPATH"].split(":")[-1]
    session.run("g.mapsets", "mapset=imagery", "operation=add")
    session.run("g.region", "n=100", "s=0", "w=0", "e=90", "res=10")
    return session


def detect(session, *arguments, check=True):
    return session.run("i.ann.maskrcnn.detect", *arguments, check=check)


def write_photo(path, bands=3, georeferenced=True, seed=1):
    pixels = np.random.default_rng(seed).integers(0, 255, (bands, 70, 80), dtype=np.uint8)
    profile = {"driver": "GTiff" if path.suffix == ".tif" else "PNG", "dtype": "uint8"}
    if georeferenced:
        profile |= {"crs": "EPSG:32633", "transform": from_origin(1000, 2000, 1, 1)}
    with rasterio.open(path, "w", height=70, width=80, count=bands, **profile) as target:
        target.write(pixels)


BANDS = ("band1=red", "band2=green", "band3=blue")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("band1=red,red", "band2=green", "band3=blue,blue"), "2 for band1, 1 for band2, 2 for band3"),
        (("band1=red", "band2=green"), "2 bands, the model was trained on 3"),
        (("group=two",), "<two> has 2 bands, the model was trained on 3"),
        (("group=nothing",), "group <nothing> not found"),
        (("band1=red", "band2=green", "band3=violet"), "Raster map <violet> not found"),
        (("band1=red", "band2=green", "band3=short"), "same extent and resolution"),
        ((*BANDS, "classes=house"), "has 2 classes (house, tree), but classes= names 1 (house)"),
        ((*BANDS, "classes=house,house"), "distinct class names"),
        ((*BANDS, "classes=a b,a_b"), "would both be called <a_b>"),
        ((*BANDS, "tile_size=100"), "Try 64 or 128"),
        ((*BANDS, "overlap=64"), "overlap below the tile size of 64"),
        ((*BANDS, "output=1/x"), "Output prefix <1/x>"),
        ((*BANDS, f"output={'x' * 252}"), "names of maps of at most 255 characters, received 257"),
        ((*BANDS, "resolution=-1"), "resolution above 0"),
        ((*BANDS, "generalize=1", "regularize=1"), "two ways that don't go together"),
        ((*BANDS, "label_next=house"), "name of another new map"),
        (("images_directory=/nowhere",), "</nowhere> does not exist"),
    ],
)
def test_bad_input_ends_before_the_work_with_what_to_do(user, tiny_model, arguments, words):
    done = detect(user, *arguments, f"model={tiny_model}", check=False)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and user.maps() == set()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            ("db.connect", "driver=sqlite", "database=$GISDBASE/$LOCATION_NAME/$MAPSET/vector/$MAP/x.db"),
            "a file of its own for each map",
        ),
        (("db.connect", "driver=pg", "database=nowhere"), "can't be read"),
        (("db.connect", "driver=sqlite", "database=/nowhere/at/all.db"), "db.connect -d"),
        (("v.external.out", "output=/tmp", "format=ESRI_Shapefile"), "v.external.out -r"),
    ],
)
def test_a_database_that_cannot_take_tables_is_found_out_before_the_work(user, tiny_model, setting, words):
    user.run(*setting)
    done = detect(user, *BANDS, f"model={tiny_model}", check=False)
    assert done.returncode == 1 and words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and "Detecting" not in done.stderr and user.maps() == set()


def test_a_model_that_is_no_hdf5_file_is_refused(user, tmp_path):
    (tmp_path / "model.h5").write_text("<!doctype html>")
    done = detect(user, *BANDS, f"model={tmp_path / 'model.h5'}", check=False)
    assert done.returncode == 1 and "HDF5" in done.stderr and "Traceback" not in done.stderr


def test_bad_directories_of_images_are_refused(user, tiny_model, tmp_path):
    write_photo(tmp_path / "plain.png", georeferenced=False)
    arguments = (f"images_directory={tmp_path}", f"model={tiny_model}")

    def message(*more):
        done = detect(user, *arguments, *more, check=False)
        assert done.returncode == 1
        return " ".join(done.stderr.split())

    assert "No image ending with .jpg found" in message("images_format=jpg")
    assert "No external georeference beside plain.png" in message("-e")
    assert "plain.png has no georeference" in message()
    write_photo(tmp_path / "two.tif", bands=2)
    assert "has 2 bands, the model was trained on 3" in message("images_format=tif")


def test_existing_maps_are_not_touched_without_overwrite(user, tiny_model):
    user.calc("instances = 1")
    user.run("v.in.ascii", "-et", "input=-", "output=tree")
    done = detect(user, *BANDS, f"model={tiny_model}", "output_type=area,raster", check=False)
    assert done.returncode == 1
    assert "vector map <tree>" in done.stderr and "raster map <instances>" in " ".join(done.stderr.split())
    assert user.maps() == {"instances", "tree"}


def test_maps_become_maps_and_the_users_region_and_mask_stay(user, tiny_model):
    user.calc("inside = if(row() < 8, 1, null())")
    user.run("r.mask", "raster=inside")
    before = user.region(), user.out("r.info", "-g", "map=MASK")
    done = detect(
        user,
        *("band1=red@imagery", "band2=green", "band3=blue@imagery", f"model={tiny_model}", "confidence=0"),
        *("output_type=area,point,raster,class,score", "output=new_", "format=json", "resolution=1"),
    )
    summary = json.loads(done.stdout)
    assert user.maps() == {
        *("inside", "MASK", "new_house", "new_tree", "new_house_points", "new_tree_points"),
        *("new_instances", "new_classes", "new_scores"),
    }
    assert (user.region(), user.out("r.info", "-g", "map=MASK")) == before
    assert set(summary["classes"]) == {"house", "tree"} and sum(summary["classes"].values()) > 0
    (scene,) = summary["scenes"]
    assert (scene["name"], scene["cells"], scene["error"]) == ("red@imagery", 9000, None)
    for name in ("house", "tree"):
        assert len(user.rows(f"new_{name}")) == summary["classes"][name]
        assert user.topology(f"new_{name}")["centroids"] == summary["classes"][name]
    user.run("r.mask", "-r")
    assert float(user.values("r.info", "-g", "map=new_instances")["nsres"]) == 1
    south = user.values("g.region", "-gu", "zoom=new_instances")["s"]
    assert float(south) >= 30  # where the mask ends


def test_certainty_and_what_to_label_next(user, tiny_model):
    done = detect(user, "-t", *BANDS, f"model={tiny_model}", "confidence=0", "label_next=next", "format=json")
    summary = json.loads(done.stdout)
    rows = user.rows("house") + user.rows("tree")
    assert rows and all(1 <= int(row["votes"]) <= 8 and 0 <= float(row["spread"]) <= 0.5 for row in rows)
    assert len(user.rows("next")) == summary["vector_maps"]["next"] > 0


def test_a_damaged_image_is_named_and_the_others_are_finished(user, tiny_model, tmp_path):
    write_photo(tmp_path / "good.tif")
    write_photo(tmp_path / "bad.tif")
    data = (tmp_path / "bad.tif").read_bytes()
    (tmp_path / "bad.tif").write_bytes(data[: len(data) // 2])
    before = user.region()
    done = detect(
        user,
        *(f"images_directory={tmp_path}", f"model={tiny_model}", "confidence=0", "classes=roof,garden"),
        check=False,
    )
    assert done.returncode == 1
    assert "bad.tif" in done.stderr and "1 of 2 scenes failed" in done.stderr
    assert user.maps() == {"roof", "garden"} and user.region() == before
    rows = user.rows("roof") + user.rows("garden")
    assert rows and {row["source"] for row in rows} == {"good.tif"}
