"""Training on a Ray cluster of two nodes, both on this machine; a worker is killed in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from grass_session import warm_python
from test_devices import assert_same_weights, environment, train

HERE = Path(__file__).parent


def train_on_cluster(*arguments, variables):
    """How the program of this name ends."""
    command = [HERE / "train_on_cluster.py", *arguments]
    return warm_python(variables["KERAS_BACKEND"]).run(list(map(str, command)), variables)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_training_on_two_nodes_survives_a_death_and_gives_the_same_weights(nodes, images, tmp_path, backend):
    variables = environment(backend, 1, TINY="1")
    changes = {"epochs": 2, "steps_per_epoch": 2, "validation_steps": 1, "learning_rate": 0.01}
    train(images, tmp_path, {"one": {"images_per_device": 2, **changes}}, variables)
    command = ["two", json.dumps({"device_count": 2, **changes})]
    done = train_on_cluster(images, tmp_path, nodes.address, *command, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "died").exists()
    assert "Going on after epoch 1" in done.stdout and "Epoch 2/2" in done.stdout
    assert_same_weights(*(tmp_path / f"mask_rcnn_{name}_2.h5" for name in ("one", "two")))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_an_image_that_cannot_be_read_ends_the_training_with_its_name(nodes, images, tmp_path, backend):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    changes = {"device_count": 2, "epochs": 1, "steps_per_epoch": 4}
    command = ["lost", json.dumps(changes), "lose"]
    variables = environment(backend, 1, TINY="1")
    done = train_on_cluster(folder, tmp_path, nodes.address, *command, variables=variables)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "DatasetError" in last and ".tif" in last and "on the cluster's node" in last, done.stderr
    assert done.stdout.count("Devices: ") == 1, done.stdout  # begun once
    assert not list(tmp_path.glob(".*"))
