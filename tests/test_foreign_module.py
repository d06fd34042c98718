"""Checkpoints of other programs given to the modules: detection, and training that starts from one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreign_weights import torchvision_weights, write_safetensors
from grass_session import create_mapset, open_session
from maskrcnn.model_file import read_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    write_safetensors(path, torchvision_weights(classes=4, seed=1))
    return path


@pytest.fixture(scope="module")
def user(project, installed, grass_folder):
    create_mapset(project, "foreign")
    session = open_session(project, "foreign", installed, grass_folder)
    session.run("g.region", "n=100", "s=0", "w=0", "e=150", "res=1")
    for number, name in enumerate(("red", "green", "blue"), 1):
        session.calc(f"{name} = int(127 + 127 * sin(row() * {7 * number}) * cos(col() * 11))")
    return session


def test_a_map_is_detected_in_by_a_checkpoint_and_what_was_assumed_is_said(user, checkpoint):
    done = user.run(
        "i.ann.maskrcnn.detect",
        *("band1=red", "band2=green", "band3=blue"),
        f"model={checkpoint}",
        "classes=house,tree,car",
        "model_settings=shorter_side=96,longer_side=128",
        *("tile_size=64", "overlap=16", "confidence=0.2", "format=json"),
    )
    summary = json.loads(done.stdout)
    assert set(summary["classes"]) == {"house", "tree", "car"} and sum(summary["classes"].values()) > 0
    assert "maskrcnn_resnet50_fpn" in done.stderr and "shorter side of 96" in " ".join(done.stderr.split())


def test_a_checkpoint_of_other_classes_starts_a_training_with_e_alone(user, checkpoint, images, tmp_path):
    def train(*more):
        return user.on("torch").run(
            "i.ann.maskrcnn.train",
            *(f"training_dataset={images}", "classes=building,tank", "backbone=resnet50"),
            *(f"model={checkpoint}", f"logs={tmp_path}", "name=fine", "epochs=1", "steps_per_epoch=1"),
            *("validation_steps=0", "images_min_dim=64", "images_max_dim=64", "precision=float32", *more),
            check=False,
        )

    assert "Use the flag -e" in " ".join(train().stderr.split())
    done = train("-e")
    model = read_model(tmp_path / "mask_rcnn_fine_1.h5")
    assert model.config.classes == ("building", "tank"), done.stderr
    assert model.config.variant.pooling == "bins" and not model.config.variant.resizes
    known = torchvision_weights(classes=4, seed=1)["backbone.body.conv1.weight"]
    assert np.abs(model.read("conv1", 0).transpose(3, 2, 0, 1) - known).max() < 0.01
