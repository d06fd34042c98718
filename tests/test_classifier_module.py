"""The classifier modules as a user runs them: installed, inside a GRASS project, on photos."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from affine import Affine

from ann.devices.available import CPU_DEVICES
from class_images import draw_image, write_class_folders
from grass_session import create_mapset, open_session
from labelled_files import write_raster

pytestmark = pytest.mark.usefixtures("installed")
CLASSES = ("field", "forest", "water")
OPTIONS = {
    "name": "places",
    "backbone": "resnet18",
    "image_size": 32,
    "epochs": 2,
    "steps_per_epoch": 12,
    "images_per_gpu": 8,
    "learning_rate": 0.002,
}


def train(session, photos, logs, *flags, check=True, **changes):
    options = [f"{key}={value}" for key, value in (OPTIONS | changes).items()]
    return session.run(
        "i.ann.classifier.train", *flags, f"training_dataset={photos}", f"logs={logs}", *options, check=check
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("photos"), {"field": 10, "forest": 8, "water": 6})


def test_classes_of_folders_are_learnt_and_told(session, photos, tmp_path):
    done = train(session, photos, tmp_path / "logs", "-s")
    assert "3 images are left out" in done.stderr
    tested = json.loads((tmp_path / "logs" / "places_test.json").read_text())
    assert {one["class"] for one in tested["told"]} == {"field", "forest", "water"}

    new = tmp_path / "new"
    for seed, name in enumerate(("field", "forest", "water", "water")):
        write_raster(new / f"{name}_{seed}.png", draw_image(name, seed=5000 + seed))
    write_raster(new / "placed.tif", draw_image("field", seed=6000), crs="EPSG:32633")
    (new / "cut.png").write_bytes((new / "field_0.png").read_bytes()[:200])
    model = f"model={tmp_path / 'logs' / 'classifier_places_best.h5'}"
    predict = ("i.ann.classifier.predict", f"images_directory={new}", model, "format=json")
    done = session.run(*predict, f"table={tmp_path / 'told.csv'}", check=False)
    assert done.returncode == 1 and "cut.png" in done.stderr and "truncated" in done.stderr
    summary = json.loads(done.stdout)
    assert sum(summary["classes"].values()) == 5 and set(summary["failed"]) == {"cut.png"}
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "told.csv").open())}
    right = [row["class"] == name.split("_")[0] for name, row in rows.items() if "_" in name]
    assert sum(right) >= 3
    assert (float(rows["placed.tif"]["x"]), float(rows["placed.tif"]["y"])) == (500_010, 5_999_990)
    assert rows["cut.png"]["class"] == "" and "truncated" in rows["cut.png"]["error"]
    refused = session.run(*predict, f"table={tmp_path / 'told.csv'}", check=False)
    assert refused.returncode and "--overwrite" in refused.stderr
    session.run(*predict, f"table={tmp_path / 'told.json'}", check=False)
    told = {one["image"]: one for one in json.loads((tmp_path / "told.json").read_text())}
    assert told["water_2.png"]["class"] == rows["water_2.png"]["class"]
    assert abs(sum(told["water_2.png"]["probabilities"].values()) - 1) < 0.01

    devices = {CPU_DEVICES: "2", "CUDA_VISIBLE_DEVICES": ""}
    shared = (*predict, f"table={tmp_path / 'shared.json'}", "gpu_count=2", "batch_size=1")
    assert "2 devices" in " ".join(session.run(*shared, check=False, **devices).stderr.split())
    for one in json.loads((tmp_path / "shared.json").read_text()):
        if one["image"] == "cut.png":
            continue
        assert one["probabilities"] == pytest.approx(told[one["image"]]["probabilities"], abs=1e-3)


def make_plots(session, folder):
    """12 x 8 plots of 32 x 32 cells: field, forest and water by chance; those of the last column are NULL.

    Maps red, green, blue, and plots: an area in each, with its use in a column.
    """
    kinds = np.random.default_rng(4).integers(0, 3, (8, 12))
    kinds[:, :3] = [0, 1, 2]
    image = np.concatenate(
        [
            np.concatenate([draw_image(CLASSES[kind], 32, 100 * r + c) for c, kind in enumerate(row)], axis=1)
            for r, row in enumerate(kinds)
        ]
    )
    write_raster(folder / "town.tif", image, crs="EPSG:32633", transform=Affine(1, 0, 0, 0, -1, 256))
    session.run("r.in.gdal", f"input={folder / 'town.tif'}", "output=town")
    session.run("g.region", "raster=town.red")
    for band in ("red", "green", "blue"):
        session.calc(f"{band} = if(col() > 352, null(), town.{band})")
    areas, labels = "", ""
    for number, (r, c) in enumerate(np.ndindex(8, 12), 1):
        x1, y1 = 32 * c + 2, 256 - 32 * r - 30
        corners = ((x1, y1), (x1 + 28, y1), (x1 + 28, y1 + 28), (x1, y1 + 28), (x1, y1))
        areas += "B 5\n" + "".join(f" {x} {y}\n" for x, y in corners)
        areas += f"C 1 1\n {x1 + 14} {y1 + 14}\n 1 {number}\n"
        labels += f"UPDATE plots SET use = '{CLASSES[kinds[r, c]]}' WHERE cat = {number};\n"
    (folder / "areas.txt").write_text(areas)
    (folder / "labels.sql").write_text(labels)
    session.run("v.in.ascii", "-n", f"input={folder / 'areas.txt'}", "output=plots", "format=standard")
    session.run("v.db.addtable", "map=plots", "columns=use varchar(10)")
    session.run("db.execute", f"input={folder / 'labels.sql'}")


def test_features_and_windows_of_maps_are_learnt_and_told(session, project, addons, grass_folder, tmp_path):
    make_plots(session, tmp_path)
    session.run("v.extract", "input=plots", "where=cat % 12 > 0", "output=known")
    bands = ("band1=red", "band2=green", "band3=blue")
    options = [f"{key}={value}" for key, value in (OPTIONS | {"scenes": "image"}).items()]
    logs = tmp_path / "logs"
    session.run(
        "i.ann.classifier.train", *bands, "labels=known", "class_column=use", f"logs={logs}", *options
    )
    model = f"model={logs / 'classifier_places_best.h5'}"
    predict = ("i.ann.classifier.predict", *bands, model)

    done = session.run(*predict, "vector=plots", "output=told", "format=json")
    summary = json.loads(done.stdout)
    assert summary["maps"] == ["told"] and summary["without_data"] == 8
    assert summary["without_data_names"][0] == "category 12"
    rows = session.rows("told")
    assert session.topology("told")["areas"] == session.topology("plots")["areas"] and len(rows) == 96
    right = [row["use"] == row["class"] for row in rows if row["class"]]
    assert len(right) == 88 and sum(right) > 70
    assert all(row["class"] == "" for row in rows if int(row["cat"]) % 12 == 0)
    # a map without a table stays without, and is told the same
    session.run("v.extract", "-t", "input=plots", "output=bare")
    session.run(*predict, "vector=bare", "output=told_bare")
    classes = {row["cat"]: row["class"] for row in rows}
    assert {row["cat"]: row["class"] for row in session.rows("told_bare")} == classes
    assert "not connected" in session.run("v.db.connect", "-p", "map=bare").stderr
    first = rows[0]
    assert float(first["probability"]) >= float(first["runner_up_probability"])
    assert first["class"] != first["runner_up"]
    assert "class" not in session.rows("plots")[0]
    assert session.out("v.db.connect", "-g", "map=told").split("|")[1] == "told_1"

    refused = session.run(*predict, "vector=told", "-u", check=False)
    assert "has the column class and probability" in " ".join(refused.stderr.split())
    session.run(*predict, "vector=told", "-u", "prefix=second_")
    assert all(row["second_class"] == row["class"] for row in session.rows("told"))
    create_mapset(project, "elsewhere")
    other = open_session(project, "elsewhere", addons, grass_folder)
    here = [f"{band}@{session.mapset}" for band in (*bands, "vector=told")]
    refused = other.run("i.ann.classifier.predict", *here, model, "-u", check=False)
    assert refused.returncode and "is in another mapset" in " ".join(refused.stderr.split())

    session.run(*predict, "window=32", "output=land")
    assert {"land", "land_probability"} <= session.maps("raster")
    info = session.values("r.info", "-g", "map=land")
    assert (info["rows"], info["cols"]) == ("8", "12")
    assert int(session.values("r.univar", "-g", "map=land")["n"]) == 88 * 32**2
    assert "water" in session.out("r.category", "map=land")
    session.run(*predict, "window=32", "step=64", "output=coarse")
    assert session.values("r.info", "-g", "map=coarse")["cols"] == "6"


def test_bad_input_is_named_before_the_work(session, photos, tmp_path, tiny_model):
    def message(done):
        assert done.returncode and "ERROR" in done.stderr
        return " ".join(done.stderr.split("ERROR:")[1].split())

    logs = tmp_path / "logs"
    refused = train(session, photos, logs, image_size=36, check=False)
    assert "not a multiple of 32" in message(refused)
    refused = train(session, photos, logs, backbone="inceptionv3", check=False)
    assert "too small for backbone=inceptionv3" in message(refused)
    refused = train(session, photos, logs, classes="field,town", check=False)
    assert "No folder of the class 'town'" in message(refused)
    refused = train(session, photos, logs, classes="field", check=False)
    assert "There is one class" in message(refused)
    refused = train(session, photos, logs, model=tiny_model, check=False)
    assert "i.ann.maskrcnn.detect" in message(refused)
    refused = train(session, photos, logs, "-i", check=False)
    assert "no ImageNet weights for the backbone resnet18" in message(refused)
    write_raster(tmp_path / "few" / "one" / "a.png", draw_image("water"))
    write_raster(tmp_path / "few" / "two" / "b.png", draw_image("field"))
    assert "class 'one' has a single image" in message(train(session, tmp_path / "few", logs, check=False))
    wrong = session.run(
        "i.ann.classifier.predict",
        f"images_directory={photos / 'water'}",
        f"model={tiny_model}",
        f"table={tmp_path / 'x.csv'}",
        check=False,
    )
    assert "i.ann.maskrcnn.detect" in message(wrong)
