"""The classifier modules as a user runs them: installed, inside a GRASS project, on photos."""

from __future__ import annotations

import csv
import json

import pytest

from class_images import draw_image, write_class_folders
from labelled_files import write_raster

pytestmark = pytest.mark.usefixtures("installed")
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
