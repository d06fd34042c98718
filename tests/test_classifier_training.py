"""A classifier learns what classes look like from a folder for each, through the library's own loop."""

from __future__ import annotations

import json

import pytest

from ann.data.class_split import set_apart_by_class
from ann.data.dataset import Dataset
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.image_classes import open_class_files
from ann.data.split import hold_out, split_dataset
from ann.devices.place import Place
from ann.training import log
from ann.training.image_size import ImageSize
from ann.training.job import Job, Silence
from ann.training.settings import TrainingSettings
from ann.training.worker import train_worker
from class_images import write_class_folders
from classifier.model_file import read_model
from classifier.preparation import describe_model
from classifier.task import TASK

SIDE = 32
pytestmark = pytest.mark.usefixtures("quick_graphs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = write_class_folders(tmp_path_factory.mktemp("photos"), {"field": 10, "forest": 8, "water": 6})
    names, files, _ = find_class_files(folder, ())
    dataset, held_out = hold_out(
        Dataset(classes=names, images=open_class_files(files, len(names), 48)), 0.1, 0, set_apart_by_class
    )
    dataset = split_dataset(dataset, 0.25, 0, set_apart_by_class)
    size = ImageSize(SIDE, SIDE, False, multiple=32, whole=True)
    config = describe_model(
        dataset,
        size,
        backbone="resnet18",
        label_smoothing=0.1,
        initial=None,
        other_classes=False,
        imagenet=False,
    )
    settings = TrainingSettings(
        name="places",
        prefix=TASK.prefix,
        logs=tmp_path_factory.mktemp("logs"),
        epochs=2,
        steps_per_epoch=12,
        validation_steps=4,
        images_per_device=8,
        learning_rate=2e-3,
        train_batch_norm=True,
    )
    job = Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings, held_out=held_out)
    return job, train_worker(job, Silence(), Place())


def test_the_classes_are_learnt_and_the_scores_say_so(trained):
    job, result = trained
    rows = log.read_rows(job.settings.table_path)
    assert result.last_epoch == 2 and float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["accuracy"]) > 0.7 and float(rows[-1]["val_accuracy"]) > 0.7
    assert float(rows[-1]["loss"]) == float(rows[-1]["class_loss"])
    tested = json.loads(job.settings.test_path.read_text())
    assert tested["all"]["accuracy"] > 0.5
    assert {one["class"] for one in tested["told"]} == {"field", "forest", "water"}
    assert abs(sum(tested["told"][0]["probabilities"].values()) - 1) < 0.01


def test_the_report_shows_the_images_left_out(trained):
    job, _ = trained
    text = job.settings.report_path.read_text()
    assert "Classifier" in text and "balanced accuracy" in text
    assert all(image.name in text for image in job.held_out)


def test_the_model_file_says_what_it_holds(trained):
    job, _ = trained
    model = read_model(job.settings.model_path(2))
    assert model.config == job.config and model.class_count == 4
    assert model.path.name == "classifier_places_2.h5"
