"""A U-Net learns what classes look like, from masks and from label rasters, through the library's own
loop.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ann.data.outlines.label_values import LabelValues
from ann.data.readers.pairs import find_pairs, read_pairs
from ann.devices.place import Place
from ann.training import log
from ann.training.image_size import ImageSize
from ann.training.job import Job, Silence
from ann.training.preparation import band_scaling, shared_values
from ann.training.settings import TrainingSettings
from ann.training.worker import train_worker
from labelled_files import write_raster
from unet.config import UNetConfig
from unet.model_file import read_model
from unet.task import TASK

SIDE = 64


def write_pairs(folder, count, seed=0):
    """Dark ground with bright stripes, labelled 255."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for start in generator.integers(0, SIDE - 8, 3):
            labels[start : start + 6] = 255
        noise = generator.integers(0, 60, (SIDE, SIDE, 3))
        image = (noise + np.where(labels[..., None] > 0, 150, 20)).astype(np.uint8)
        for name, pixels in (("images", image), ("masks", labels)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_raster(folder / name / f"tile_{number}.png", pixels)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, 5)
    found = read_pairs(folder, find_pairs(folder), ("road",), LabelValues(ids={}))
    return replace(found, images=found.images[:3], validation=found.images[3:4]), found.images[4:]


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    data, held_out = dataset
    size = ImageSize(0, SIDE, False, multiple=8)
    config = UNetConfig(**shared_values(data, size, "unet_resnet18"), **band_scaling(data))
    settings = TrainingSettings(
        name="roads",
        prefix=TASK.prefix,
        logs=tmp_path_factory.mktemp("logs"),
        epochs=2,
        steps_per_epoch=12,
        validation_steps=1,
        images_per_device=2,
        learning_rate=2e-3,
        train_batch_norm=True,
    )
    job = Job(task=TASK, dataset=data, config=config, size=size, settings=settings, held_out=held_out)
    return job, train_worker(job, Silence(), Place())


def test_the_classes_are_learnt_and_the_scores_say_so(trained):
    job, result = trained
    rows = log.read_rows(job.settings.table_path)
    assert result.last_epoch == 2 and [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["IoU"]) > 0.5
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    tested = json.loads(job.settings.test_path.read_text())
    assert tested["classes"]["road"]["IoU"] > 0.5
    assert "U-Net" in job.settings.report_path.read_text()


def test_the_model_file_says_what_it_holds(trained):
    job, _ = trained
    model = read_model(job.settings.model_path(2))
    assert model.config == job.config
    assert model.path.name == "unet_roads_2.h5"
