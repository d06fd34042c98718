"""The U-Net modules as a user runs them: installed, inside a GRASS project, on maps."""

from __future__ import annotations

import json

import pytest

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
    rules = "3:ground\n7:water\n"
    session.python(
        "import sys, grass.script as gs; "
        "gs.write_command('r.category', map='labels', rules='-', separator=':', stdin=sys.argv[1].encode())",
        rules,
    )
    return session


BANDS = ("band1=red", "band2=green", "band3=blue")


OPTIONS = {
    "label_raster": "labels",
    "classes": "water",
    "name": "stripes",
    "architecture": "unet_vgg",
    "tile_size": 32,
    "epochs": 2,
    "steps_per_epoch": 20,
    "validation_steps": 2,
    "images_per_gpu": 2,
    "learning_rate": 0.002,
}


def train(session, logs, check=True, **changes):
    options = [f"{key}={value}" for key, value in (OPTIONS | changes).items()]
    return session.run("i.ann.unet.train", *BANDS, f"logs={logs}", *options, check=check)


def test_a_label_raster_is_learnt_and_predicted_in_any_region_with_the_same_values(maps, tmp_path):
    train(maps, tmp_path / "logs")
    model = f"model={tmp_path / 'logs' / 'unet_stripes_best.h5'}"
    predict = ("i.ann.unet.predict", *BANDS, model, "output_type=class,probability", "format=json")
    done = maps.run(*predict, "output=whole", "tile_size=256")
    summary = json.loads(done.stdout)
    assert set(summary["raster_maps"]) == {"whole", "whole_water"}
    found = summary["scenes"][0]["classes"]["water"]
    assert found["cells"] == found["area"]
    maps.calc("right = if(whole == stripe, 1, 0)")
    assert float(maps.values("r.univar", "-g", "map=right")["mean"]) > 0.9
    assert "water" in maps.out("r.category", "map=whole")
    maps.run("g.region", "n=101", "s=20", "w=13", "e=90")
    maps.run(*predict, "output=part", "tile_size=160")
    maps.calc("difference = abs(whole_water - part_water)")
    values = maps.values("r.univar", "-g", "map=difference")
    assert int(values["n"]) == 81 * 77 and float(values["max"]) < 1e-5

    for number in (1, 2):  # dots are common in names, and a mapset may stand behind
        maps.run("g.copy", f"raster=red,red.201{number}")
    two = ("i.ann.unet.predict", "band1=red.2011,red.2012", "band2=green,green", "band3=blue,blue", model)
    maps.run(*two, f"output=pair@{maps.mapset}")
    assert maps.maps("raster") >= {"pair_red_2011", "pair_red_2012"}
    other = maps.run(*two, "output=pair@elsewhere", check=False)
    assert "<pair@elsewhere_red_2011> can't be a map's name" in " ".join(other.stderr.split())


def test_bad_input_is_named_before_the_work(maps, tmp_path, tiny_model):
    def message(done):
        assert done.returncode and "ERROR" in done.stderr
        return " ".join(done.stderr.split("ERROR:")[1].split())

    assert "multiple of 8" in message(train(maps, tmp_path, tile_size=36, check=False))
    maps.calc("fractions = labels * 0.5")
    assert "has fractions" in message(train(maps, tmp_path, label_raster="fractions", check=False))
    assert "labelled 'road'" in message(train(maps, tmp_path, classes="road", check=False))
    wrong = maps.run("i.ann.unet.predict", *BANDS, f"model={tiny_model}", "output=x", check=False)
    assert "i.ann.maskrcnn.detect" in message(wrong)
    for name, value in (("ignore", "3"), ("class_values", "7:water")):
        refused = train(maps, tmp_path, **{name: value}, check=False)
        assert f"{name}= can't be used" in message(refused)
    assert "mutually exclusive" in message(train(maps, tmp_path, cluster="auto", check=False))
    assert maps.maps("raster") >= {"labels"} and "x" not in maps.maps("raster")
