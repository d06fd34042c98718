"""i.ann.maskrcnn.train as a user runs it: installed by g.extension, inside a GRASS project, on files."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ann.data.readers.formats import open_dataset
from drawing import CLASSES, draw_scene, write_geotiff
from maskrcnn.model_file import read_model

pytestmark = pytest.mark.usefixtures("installed")
SMALL = {
    "backbone": "resnet18",
    "images_min_dim": 64,
    "images_max_dim": 64,
    "rois_per_image": 8,
    "epochs": 1,
    "steps_per_epoch": 1,
    "validation_steps": 1,
}


@pytest.fixture
def session(session):
    """The session on PyTorch, which has nothing to compile; what is said of modules holds on all backends."""
    return session.on("torch")


def train(session, images, logs, *flags, check=True, **options):
    values = {"training_dataset": images, "classes": ",".join(CLASSES), "logs": logs, "name": "test", **SMALL}
    arguments = [f"{name}={value}" for name, value in (values | options).items()]
    done = session.run("i.ann.maskrcnn.train", *flags, *arguments, check=check)
    return " ".join((done.stdout + done.stderr).split())


def fails(session, images, logs, *flags, **options):
    """The message of a run that must fail, and must not leave a model."""
    done = train(session, images, logs, *flags, check=False, **options)
    assert "ERROR:" in done, done
    assert not list(logs.glob("mask_rcnn_test_*"))
    return done.split("ERROR:", 1)[1]


def count_masks(images, class_name):
    return len(list(images.glob(f"*/*-{class_name}-*.png")))


def test_every_instance_is_read_and_the_run_is_recorded(session, images, tmp_path):
    session = session.on("tensorflow")
    region = session.region()
    output = train(session, images, tmp_path / "logs", "-s")
    unused = (tmp_path / "logs" / "unused.txt").read_text().split()
    assert len(unused) == 1
    folder = unused[0].rsplit("/", 1)[0]
    for name in CLASSES:
        used = count_masks(images, name) - len(list(Path(folder).glob(f"*-{name}-*.png")))
        words = output.split(f"{name}: ")[1].split()
        assert int(words[0]) + int(words[5]) == used, output
    model = read_model(tmp_path / "logs" / "mask_rcnn_test_1.h5")
    assert model.config.classes == CLASSES
    assert model.config.backbone == "resnet18"
    assert model.config.image_shape == (64, 64)
    assert model.config.pixel_size == 0.5
    with (tmp_path / "logs" / "test.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert np.isfinite(float(row["loss"]))
    assert 0 <= float(row["mask_AP"]) <= float(row["mask_AP50"]) <= 1 and float(row["scoring_seconds"]) > 0
    assert {f"mask_AP_{name}" for name in CLASSES} <= set(row)
    assert "Scores on the images left out: masks AP " in output
    scores = json.loads((tmp_path / "logs" / "test_test.json").read_text())
    assert scores["images"] == [unused[0].split("/", unused[0].count("/") - 1)[-1]]
    assert 0 <= scores["all"]["mask_AP"] <= 1 and set(scores["classes"]) == set(CLASSES)
    report = (tmp_path / "logs" / "test.html").read_text()
    assert all(f"<td>{name}</td><td>{value}</td>" in report for name, value in SMALL.items())
    assert "Test: images that were left out" in report and "tank" in report and "resnet18" in report
    assert list((tmp_path / "logs" / "tensorboard" / "test").iterdir())
    assert (tmp_path / "logs" / "test.png").stat().st_size > 1000
    assert session.region() == region
    assert session.maps() == set()
    # on another backend, which reads the same state
    again = {"epochs": 3, "validation_steps": 0, "model": model.path}
    resumed = train(session.on("torch"), images, tmp_path / "logs", "-s", **again)
    assert "Going on after epoch 1" in resumed and "(heads)" not in resumed and "(4+)" not in resumed


def test_scenes_are_written_as_tiles_in_shards(session, images, tmp_path):
    done = train(session, images, tmp_path / "logs", shards=tmp_path / "set")
    written = open_dataset(tmp_path / "set", CLASSES).images
    assert f"Wrote {len(written)} tiles in 1 shards" in done and len(written) >= 4
    assert not (tmp_path / "logs").exists()


def test_maps_and_areas_are_trained_on_without_any_file(session, tmp_path):
    scene = tmp_path / "scene.tif"
    write_geotiff(scene, draw_scene(height=96, width=192, objects=0, seed=1).image)
    session.run("r.in.gdal", f"input={scene}", "output=scene")
    session.run("g.region", "raster=scene.red")
    session.run("v.mkgrid", "map=parcels", "grid=4,8")
    session.run("v.in.region", "output=ground")
    session.calc("filled = if(row() % 4 == 0, -9999.0, scene.green / 255.0)")
    region, maps = session.region(), session.maps()
    values = {f"band{number}": f"scene.{band}" for number, band in enumerate(("red", "green", "blue"), 1)}
    values |= {"band2": "filled", "labels": "parcels", "classes": "parcel", "training_areas": "ground"}
    values |= {"logs": tmp_path, "name": "parcels", **SMALL}

    def train_on_maps(check=True, **options):
        arguments = [f"{name}={value}" for name, value in (values | options).items() if value]
        done = session.run("i.ann.maskrcnn.train", *arguments, check=check)
        return " ".join((done.stdout + done.stderr).split())

    for options, text in (
        ({"training_dataset": tmp_path}, "mutually exclusive"),
        ({"labels": None}, "requires"),
        ({"class_column": "kind", "name": "other"}, "no column 'kind'"),
    ):
        output = train_on_maps(check=False, **options)
        assert "ERROR" in output and text in output, output
    # a number for missing data, until it is NULL
    output = train_on_maps(check=False)
    assert "scene.red@" in output and "band 2: 25% of the pixels looked at have the value -9999," in output
    session.run("r.null", "map=filled", "setnull=-9999")
    output = train_on_maps()
    words = output.split("parcel: ")[1].split()
    assert int(words[0]) >= 16 and int(words[5]) >= 12, output  # a strip of a third is for validation
    config = read_model(tmp_path / "mask_rcnn_parcels_1.h5").config
    assert config.classes == ("parcel",) and config.pixel_size == 0.5
    assert abs(config.band_mean[1] - 0.5) < 0.5
    assert (session.region(), session.maps()) == (region, maps)


def test_the_light_backbone_starts_from_imagenet_weights_without_stages(session, images, tmp_path):
    options = {"backbone": "efficientnet_lite0", "epochs": 3, "validation_steps": 0}
    output = train(session, images, tmp_path / "logs", "-i", **options)
    assert "starts from ImageNet weights" in output
    assert "(all)" in output and "(heads)" not in output and "(4+)" not in output
    assert "make 3 steps. A first model of these images takes about" in output
    assert read_model(tmp_path / "logs" / "mask_rcnn_test_3.h5").config.backbone == "efficientnet_lite0"


def test_initial_weights_of_other_classes_need_the_flag_e(session, images, tmp_path, tiny_model):
    options = {"model": tiny_model, "validation_steps": 0}
    assert "-e" in fails(session, images, tmp_path / "logs", **options)
    output = train(session, images, tmp_path / "logs", "-e", epochs=3, **options)
    assert "mrcnn_class_logits" in output
    assert "(heads)" in output and "(4+)" in output and "(all)" in output


def test_ctrl_c_ends_cleanly_and_keeps_the_last_model(session, images, tmp_path):
    values = {"training_dataset": images, "classes": ",".join(CLASSES), "logs": tmp_path, "name": "test"}
    changes = {"epochs": 10_000, "validation_steps": 0}
    arguments = [f"{name}={value}" for name, value in (values | SMALL | changes).items()]
    process = subprocess.Popen(
        ["i.ann.maskrcnn.train", *arguments],
        env=session.variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 400
    second = tmp_path / "mask_rcnn_test_2.h5"  # so the first epoch is complete
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Interrupted. The last model is" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert read_model(tmp_path / "mask_rcnn_test_1.h5").config.classes == CLASSES
    assert not list(tmp_path.glob("*.part"))


def test_the_dialog_offers_to_overwrite(session):
    assert '<flag name="overwrite">' in session.out("i.ann.maskrcnn.train", "--interface-description")


def copy_of(images, tmp_path):
    return shutil.copytree(images, tmp_path / "images")


def first(folder, pattern):
    return next(iter(sorted(folder.glob(pattern))))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"training_dataset": "/nowhere"}, "does not exist"),
        ({"classes": "building"}, "tank"),
        ({"classes": "building,tank,tree"}, "tree"),
        ({"classes": "building,tank,tank"}, "more than once"),
        ({"images_min_dim": 100}, "multiple of 64"),
        ({"images_min_dim": 128}, "larger than"),
        ({"gpu_count": 99}, "devices"),
        ({"model": "/nowhere.h5"}, "/nowhere.h5"),
        ({"backbone": "resnet50", "model": "TINY"}, "backbone=resnet18"),
        ({"logs": "/proc/logs"}, "can't be written"),
        ({"name": "a/b"}, "file name"),
    ],
)
def test_bad_options_are_explained_before_any_work(session, images, tmp_path, tiny_model, options, text):
    options = {name: tiny_model if value == "TINY" else value for name, value in options.items()}
    logs = Path(options.pop("logs", tmp_path / "logs"))
    assert text in fails(session, images, logs, **options)


def test_bad_files_are_named(session, images, tmp_path):
    folder = copy_of(images, tmp_path)
    mask = first(folder, "scene_0/*.png")
    with rasterio.open(mask, "w", driver="PNG", height=10, width=10, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 10, 10), np.uint8))
    assert mask.name in fails(session, folder, tmp_path / "logs")
    mask.unlink()
    image = folder / "scene_1" / "scene_1.tif"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    assert "scene_1.tif" in fails(session, folder, tmp_path / "logs")
    image.unlink()
    assert "scene_1" in fails(session, folder, tmp_path / "logs")
    shutil.rmtree(folder)
    folder.mkdir()
    assert str(folder) in fails(session, folder, tmp_path / "logs")


def test_without_resizing_images_must_be_of_one_size(session, images, tmp_path):
    folder = copy_of(images, tmp_path)
    assert "multiples of 64" in fails(session, folder, tmp_path / "logs", "-n")
    write_geotiff(
        folder / "scene_0" / "scene_0.tif", draw_scene(height=64, width=96, objects=0, seed=1).image
    )
    for mask in folder.glob("scene_0/*.png"):
        mask.unlink()
    assert "one size" in fails(session, folder, tmp_path / "logs", "-n")


def test_a_file_that_is_no_model_is_refused(session, images, tmp_path):
    (tmp_path / "notes.h5").write_text("no model")
    assert "notes.h5" in fails(session, images, tmp_path / "logs", model=tmp_path / "notes.h5")


def test_models_of_an_earlier_run_stay_unless_overwriting_is_allowed(session, images, tmp_path):
    (tmp_path / "mask_rcnn_test_7.h5").write_text("precious")
    assert "--overwrite" in train(session, images, tmp_path, check=False)
    assert (tmp_path / "mask_rcnn_test_7.h5").read_text() == "precious"


def test_the_list_of_images_that_another_run_left_out_stays(session, images, tmp_path):
    (tmp_path / "unused.txt").write_text("precious\n")
    assert "unused.txt lists other images" in fails(session, images, tmp_path, "-s")
    assert (tmp_path / "unused.txt").read_text() == "precious\n"
