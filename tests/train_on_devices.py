"""Train the same few steps on one device and on several, in the environment that a test sets up.

python train_on_devices.py IMAGES LOGS RUNS: runs as JSON, {name: changes of the settings}. Prints what they
reported. A process that a launcher has given a rank trains as one of several.

The optimiser is gradient descent: AdamW makes whole steps of gradients that are nothing but rounding errors.
With ADAMW in the environment it is left as it is. With TINY in the environment the network is that of
`tiny_task`: for what happens to processes whatever they train.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from ann.data.readers.formats import open_dataset
from ann.data.split import split_dataset
from ann.devices.place import Place
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from ann.training.worker import train, train_worker
from drawing import CLASSES
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import read_model
from maskrcnn.task import TASK
from quick_graphs import skip_graph_optimisation

CONFIG = MaskRCNNConfig(
    classes=CLASSES,
    backbone="resnet18",
    image_shape=(64, 64),
    band_mean=(120.0, 110.0, 100.0),
    band_scale=(50.0, 50.0, 50.0),
    anchor_scales=(8, 16, 32, 64, 128),
    max_instances=10,
    rois_per_image=8,
    proposal_candidates=100,
    proposals_training=20,
)


def gradient_descent(settings):
    import keras

    from ann.training.loop import GRADIENT_NORM

    return keras.optimizers.SGD(settings.learning_rate, momentum=0.9, global_clipnorm=GRADIENT_NORM)


def training_model(make, network, config):
    """What a task's `make` gives; called in the process that trains, which is set up for these tests."""
    from ann.training import loop

    skip_graph_optimisation()
    if "ADAMW" not in os.environ:
        loop.make_optimizer = gradient_descent
    return make(network, config)


class Printer:
    def message(self, text):
        print(text, flush=True)

    def percent(self, done, total):
        print(f"{done}/{total}", flush=True)


def task():
    if "TINY" not in os.environ:
        return TASK
    import tiny_task

    return tiny_task.TASK


def make_job(images, logs, name, **changes):
    """A job of 10 steps; changes: of its settings. Goes on where `logs` holds a state of that name."""
    dataset = split_dataset(open_dataset(images, CLASSES), 0.3)
    settings = TrainingSettings(
        name=name, logs=Path(logs), epochs=1, steps_per_epoch=10, validation_steps=2, workers=1
    )
    settings = replace(settings, **changes)
    chosen = task()
    prepared = replace(chosen, training_model=partial(training_model, chosen.training_model))
    job = Job(task=prepared, dataset=dataset, config=CONFIG, size=ImageSize(64, 64, False), settings=settings)
    if settings.state_path.exists():
        state = read_model(settings.state_path)
        return replace(job, initial=state, epoch=int(state.extra["epoch"]))
    return job


if __name__ == "__main__":
    images, logs, runs = sys.argv[1:]
    for name, changes in json.loads(runs).items():
        job, place = make_job(images, logs, name, **changes), Place.from_environment()
        result = train_worker(job, Printer(), place) if place.world_size > 1 else train(job, Printer())
        print(result, flush=True)
