"""The U-Net modules as a user runs them: installed, inside a GRASS project, on maps."""

from __future__ import annotations

import json

import pytest

from ann.data.readers.formats import open_dataset
from drawing import draw_scene, write_geotiff

pytestmark = pytest.mark.usefixtures("installed")
CELLS = 128


@pytest.fixture
def maps(session):
    """Bright stripes of water on dark ground, and a label raster of the western half."""
    session.run("g.region", f"n={CELLS}", "s=0", "w=0", f"e={CELLS}", "res=1")
    session.calc("stripe = if(row() % 32 < 12, 1, 0)")
    for band in ("red", "green", "blue"):
        session.calc(f"{band} = int(40 + 150 * stripe + (row() * 13 + col() * 7) % 30)")
    session.calc("labels = if(col() <= 96, if(stripe, 7, 3), null())")
    label(session, "labels", "3:ground\n7:water\n")
    return session


def label(session, name, rules):
    """Give the categories of a map labels."""
    session.python(
        "import sys, grass.script as gs; gs.write_command('r.category', map=sys.argv[1], rules='-', "
        "separator=':', stdin=sys.argv[2].encode())",
        name,
        rules,
    )


BANDS = ("band1=red", "band2=green", "band3=blue")


OPTIONS = {
    "label_raster": "labels",
    "classes": "water",
    "name": "stripes",
    "architecture": "unet_vgg",
    "tile_size": 32,
    "epochs": 1,
    "steps_per_epoch": 30,
    "validation_steps": 2,
    "images_per_gpu": 2,
    "learning_rate": 0.002,
}


def train(session, logs, *flags, check=True, **changes):
    options = [f"{key}={value}" for key, value in (OPTIONS | changes).items()]
    return session.run("i.ann.unet.train", *BANDS, f"logs={logs}", *options, *flags, check=check)


def test_a_label_raster_is_learnt_and_predicted_in_any_region_with_the_same_values(maps, tmp_path):
    train(maps, tmp_path / "logs")
    model = f"model={tmp_path / 'logs' / 'unet_stripes_best.h5'}"
    predict = ("i.ann.unet.predict", *BANDS, model, "output_type=class,probability,area", "format=json")
    done = maps.run(*predict, "output=whole", "tile_size=256", "minimum_area=30")
    summary = json.loads(done.stdout)
    assert set(summary["raster_maps"]) == {"whole", "whole_water"}
    found = summary["classes"]["water"]
    assert found == summary["scenes"][0]["classes"]["water"] and found["cells"] == found["area"]
    assert summary["vector_maps"] == {"whole": len(maps.rows("whole"))}
    rows = maps.rows("whole")
    assert {row["class"] for row in rows} == {"water"} and {row["source"] for row in rows} == {
        "red@" + maps.mapset
    }
    areas = [float(row["area"]) for row in rows]
    assert min(areas) >= 30 and sum(areas) == pytest.approx(found["area"], rel=0.1)
    assert maps.topology("whole")["centroids"] == len(rows)
    maps.calc("right = if(whole == stripe, 1, 0)")
    assert float(maps.values("r.univar", "-g", "map=right")["mean"]) > 0.9
    assert maps.out("r.category", "map=whole", "separator=:").split() == ["0:background", "1:water"]
    assert maps.out("r.what.color", "input=whole", "value=0,1").split() == [
        "0:",
        "255:255:255",
        "1:",
        "230:57:57",
    ]
    assert "i.ann.unet.predict" in maps.out("r.info", "-h", "map=whole")
    maps.run("g.region", "n=101", "s=20", "w=13", "e=90")
    done = maps.run(*predict, "output=part", "tile_size=160")
    assert "each cell is computed 25.0 times. Use 256 or more" in " ".join(done.stderr.split())
    maps.calc("difference = abs(whole_water - part_water)")
    values = maps.values("r.univar", "-g", "map=difference")
    assert int(values["n"]) == 81 * 77 and float(values["max"]) < 1e-5

    turned = (*predict[:-2], "output_type=class,probability,deviation,area", "-t", "regularize=3")
    maps.run(*turned, "output=turned", "tile_size=256")
    deviation = maps.values("r.univar", "-g", "map=turned_water_deviation")
    assert 0 < float(deviation["max"]) <= 0.5 and int(deviation["n"]) == 81 * 77
    assert float(maps.values("r.univar", "-g", "map=turned_water")["max"]) <= 1
    assert maps.topology("turned")["centroids"] == len(maps.rows("turned")) > 0
    for wrong, words in (
        ("output_type=deviation", "Add the flag -t"),
        ("regularize=3", "regularize= is for vector areas"),
    ):
        done = maps.run(*predict[:-2], wrong, "output=no", check=False)
        assert done.returncode == 1 and words in " ".join(done.stderr.split())

    maps.run("g.copy", "raster=red,red.2012")  # dots are common in names, and a mapset may stand behind
    maps.run("g.region", "raster=red")
    maps.calc("red.2011 = if(x() < 17, null(), red)")  # four columns of the region
    maps.run("g.region", "n=101", "s=20", "w=13", "e=90")
    two = ("i.ann.unet.predict", "band1=red.2011,red.2012", "band2=green,green", "band3=blue,blue", model)
    maps.run(*two, f"output=pair@{maps.mapset}")
    assert maps.maps("raster") >= {"pair_red_2011", "pair_red_2012"}
    nulls = [maps.values("r.univar", "-g", f"map=pair_red_201{n}")["null_cells"] for n in (1, 2)]
    assert nulls == [str(4 * 81), "0"]
    other = maps.run(*two, "output=pair@elsewhere", check=False)
    assert "<pair@elsewhere_red_2011> can't be a map's name" in " ".join(other.stderr.split())


def test_label_rasters_are_written_as_shards(maps, tmp_path):
    train(maps, tmp_path / "logs", shards=tmp_path / "set")
    stored = open_dataset(tmp_path / "set", ("water",))
    assert stored.labels == "cells" and stored.instance_counts == (48 * 96,)
    assert not (tmp_path / "logs").exists()


def test_bad_input_is_named_before_the_work(maps, tmp_path, tiny_model, tiny_unet):
    def message(done):
        assert done.returncode and "ERROR" in done.stderr
        return " ".join(done.stderr.split("ERROR:")[1].split())

    assert "multiple of 8" in message(train(maps, tmp_path, tile_size=36, check=False))
    assert "test_share=2 is not between" in message(train(maps, tmp_path, "-s", test_share=2, check=False))
    maps.calc("fractions = labels * 0.5")
    maps.calc("twice = labels")
    assert "has fractions" in message(train(maps, tmp_path, label_raster="fractions", check=False))
    assert "labelled 'road'" in message(train(maps, tmp_path, classes="road", check=False))
    label(maps, "twice", "3:water\n7:water\n")
    assert "Several categories of <twice" in message(train(maps, tmp_path, label_raster="twice", check=False))
    maps.run("g.region", "w=96")  # there labels are NULL
    assert "has a label that counts" in message(train(maps, tmp_path, check=False))
    maps.run("g.region", "w=0")
    maps.calc("water = if(labels == 7, 7, null())")
    label(maps, "water", "7:water\n")
    assert "nothing to tell it from" in message(train(maps, tmp_path, label_raster="water", check=False))
    wrong = maps.run("i.ann.unet.predict", *BANDS, f"model={tiny_model}", "output=x", check=False)
    assert "i.ann.maskrcnn.detect" in message(wrong)
    wrong = maps.run("i.ann.maskrcnn.detect", *BANDS, f"model={tiny_unet}", check=False)
    assert "i.ann.unet.predict" in message(wrong)
    predict = ("i.ann.unet.predict", *BANDS, f"model={tiny_unet}", "output=x")
    for option, words in (
        ("tile_size=100", "multiple of the network's stride of 8"),
        ("threshold=1", "not between 0 and 1"),
        ("minimum_area=3", "Add area to output_type="),
    ):
        assert words in message(maps.run(*predict, option, check=False))
    for name, value in (("ignore", "3"), ("class_values", "7:water")):
        refused = train(maps, tmp_path, **{name: value}, check=False)
        assert f"{name}= can't be used" in message(refused)
    assert maps.maps("raster") >= {"labels"} and "x" not in maps.maps("raster")


def test_images_of_a_directory_are_predicted_by_any_number_of_devices_at_any_resolution(
    session, tmp_path, tiny_unet
):
    for number in range(2):
        write_geotiff(
            tmp_path / f"scene_{number}.tif", draw_scene(height=90, width=70, objects=5, seed=number).image
        )
    options = ("i.ann.unet.predict", f"images_directory={tmp_path}", f"model={tiny_unet}", "-k")
    kinds = "output_type=class,probability"
    one = session.run(*options, kinds, "output=one", "format=json", "nprocs=1")
    session.run(*options, kinds, "output=two", "gpu_count=2", "tile_size=256", MASKRCNN_CPU_DEVICES="2")
    summary = json.loads(one.stdout)
    assert [scene["cells"] for scene in summary["scenes"]] == [90 * 70] * 2
    for number in range(2):
        session.run("g.region", f"raster=one_scene_{number}")
        session.calc(f"difference = abs(one_scene_{number}_road - two_scene_{number}_road)")
        values = session.values("r.univar", "-g", "map=difference")
        assert int(values["n"]) == 90 * 70 and float(values["max"]) < 1e-5
        counts = session.values("r.univar", "-g", f"map=one_scene_{number}")
        assert float(counts["sum"]) == summary["scenes"][number]["classes"]["road"]["cells"]
    cell = float(session.region()["nsres"])
    coarse = json.loads(
        session.run(*options, "output=coarse", f"resolution={2 * cell}", "format=json").stdout
    )
    assert coarse["scenes"][0]["cells"] == 45 * 35
    assert float(session.values("r.info", "-g", "map=coarse_scene_0")["nsres"]) == 2 * cell
