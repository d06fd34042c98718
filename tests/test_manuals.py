"""The manuals: their examples run as they stand (on less data), and the HTML is that of the Markdown."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from drawing import draw_scene, write_training_directory
from labelled_files import noise, write_raster

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from manuals_to_html import MANUALS, to_html

# What makes the examples quick; everything else is run as it is printed.
SMALLER = {
    r"epochs=20": "epochs=1",
    r"small_20\.h5": "small_1.h5",
    r"steps_per_epoch=200": "steps_per_epoch=1 validation_steps=0",
    r"images_max_dim=256": "images_max_dim=64 images_min_dim=64",
    r"model=roofs\.h5": "model=roofs.h5 confidence=0.1",  # whose weights are drawn by chance
}
MODEL_CODE = """
import sys
from ann.training.seeds import seed_everything
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.model import build_network
from ann.weights import save_model
seed_everything(2)  # with some weights nothing is detected
for text in sys.argv[1:]:
    path, bands, *classes = text.split(",")
    config = MaskRCNNConfig(classes=tuple(classes), backbone="resnet18", image_shape=(64, 64),
                         proposal_candidates=200, band_mean=(100.0,) * int(bands),
                         band_scale=(50.0,) * int(bands), proposals_detection=20)
    save_model(path, legacy_layout(build_network(config)), config)
"""


def examples(module):
    """The blocks of shell commands in a manual's examples."""
    (manual,) = [path for path in MANUALS if path.stem == module]
    text = manual.read_text(encoding="utf-8").split("## EXAMPLES")[1]
    return re.findall(r"```sh\n(.*?)```", text, flags=re.S)


def run_examples(session, module, folder):
    blocks = examples(module)
    assert blocks
    for block in blocks:
        for pattern, smaller in SMALLER.items():
            block = re.sub(pattern, smaller, block)
        done = session.shell(block, folder)
        assert done.returncode == 0, block + done.stdout + done.stderr


def test_examples_of_train_run(session, installed, tmp_path):
    for number in range(4):
        scene = draw_scene(height=96, width=96, objects=6, seed=number)
        write_training_directory(tmp_path / "training", f"scene_{number}", scene)
    run_examples(session.on("torch"), "i.ann.maskrcnn.train", tmp_path)  # which has nothing to compile
    assert (tmp_path / "logs" / "mask_rcnn_small_1.h5").exists()
    assert (tmp_path / "logs" / "mask_rcnn_other_1.h5").exists()


def test_examples_of_detect_run(session, installed, tmp_path):
    session.run("g.region", "n=5550064", "s=5550000", "w=460000", "e=460064", "res=1")
    for name in ("ortho.red", "ortho.green", "ortho.blue", "may.red", "may.green", "may.blue", "may.nir"):
        session.calc(f"{name} = (row() * 7 + col() * 13) % 255")
    models = ("city_200.h5,3,building,tree", "fields_50.h5,4,field")
    session.python(MODEL_CODE, *(f"{tmp_path}/mask_rcnn_{model}" for model in models))
    photos = tmp_path / "photos"
    photos.mkdir()
    image = draw_scene(height=64, width=64, objects=3, seed=1).image
    transform = from_origin(460000, 5550064, 1, 1)
    with rasterio.open(
        photos / "a.jpg", "w", driver="JPEG", height=64, width=64, count=3, dtype="uint8"
    ) as file:
        file.write(np.moveaxis(image, -1, 0))
    (photos / "a.jgw").write_text(f"1\n0\n0\n-1\n{transform.c + 0.5}\n{transform.f - 0.5}\n")
    # the third example writes the same maps as the first
    session.variables["GRASS_OVERWRITE"] = "1"
    run_examples(session, "i.ann.maskrcnn.detect", tmp_path)
    assert {"building", "tree", "may_field", "may_instances"} <= session.maps()


def test_examples_of_classifier_predict_run(session, installed, tiny_classifier, tmp_path):
    """Photos, objects that were detected, and windows."""
    session.run("g.region", "n=5550128", "s=5550000", "w=460000", "e=460128", "res=1")
    for band in ("red", "green", "blue"):
        session.calc(f"ortho.{band} = (row() * 7 + col() * 13) % 255")
    session.run("i.group", "group=sentinel", "input=ortho.red,ortho.green,ortho.blue")
    session.python(MODEL_CODE, f"{tmp_path}/roofs.h5,3,roof")
    (tmp_path / "logs").mkdir()
    for name in ("roofs", "material", "use"):
        shutil.copy(tiny_classifier, tmp_path / "logs" / f"classifier_{name}_best.h5")
    write_raster(tmp_path / "new_photos" / "a.tif", noise(40, 60), crs="EPSG:32633")
    run_examples(session, "i.ann.classifier.predict", tmp_path)
    rows = session.rows("roof")
    assert rows and {row["class"] for row in rows} == {"roof"}
    assert {row["material_class"] for row in rows} <= {"wood", "stone"}
    assert {"photos", "land_use", "land_use_probability"} <= session.maps()
    assert "a.tif" in (tmp_path / "classes.csv").read_text()


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.stem)
def test_html_is_up_to_date(manual):
    assert manual.with_suffix(".html").read_text(encoding="utf-8") == to_html(
        manual.read_text(encoding="utf-8")
    ), "run docs/manuals_to_html.py"
