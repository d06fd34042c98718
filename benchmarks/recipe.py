#!/usr/bin/env python3
"""How good is a model after so many minutes of training? Trains one Mask R-CNN and scores it on other scenes.

usage: recipe.py --training FOLDER --test FOLDER --classes CLASSES --minutes MINUTES RECIPE [name=value ...]
       recipe.py ... --steps STEPS ...
       recipe.py --plot

FOLDER: a training dataset in any format; without --test the validation part of the dataset is the test.
RECIPE: what to call it in the table and in the plot. name=value: what differs from DEFAULTS below.

Minutes are those of the processor, so that other work on the machine doesn't count; pinned to one core of a
quiet machine (taskset -c 0) they are minutes of the clock. Beside other work a step takes more of them, by up
to a half: there --steps compares what takes equally long. The run is scored after some epochs, on whole
images cut and merged as i.ann.maskrcnn.detect does; scoring is no part of its minutes. The learning rate
follows the minutes of the whole run: a shorter run, which ends with a low rate too, reaches more than what is
seen on the way. Rows are added to docs/benchmarks/recipe.csv; --plot draws recipe.png from it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import RESULTS, Clock, Reporter, add_rows, describe_network

from ann.data.readers.formats import open_dataset
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings
from maskrcnn.task import TASK

TABLE, PICTURE = RESULTS / "recipe.csv", RESULTS / "recipe.png"
SCORES = ("box_AP", "box_AP50", "mask_AP", "mask_AP50", "mask_AP75", "mask_AR")
COLUMNS = ("data", "recipe", "seed", "minutes", "trained", "steps", "tile", "detection", *SCORES, "options")
SCORED = (0.125, 0.25, 0.5, 1.0)  # shares of the minutes after which the model is scored
AS_TRAINED = {"": {}}
DETECTIONS = AS_TRAINED | {  # what differs from how trained models detect
    "NMS 0.3": {"detection_nms_threshold": 0.3},
    "background competes": {"background_competes": True},
}
DEFAULTS = {
    "backbone": "efficientnet_lite0",
    "imagenet": 0,
    "staged": 0,
    "learning_rate": 5e-4,
    "side": 256,
    "batch": 2,
    "rois": 64,
    "weight_decay": 1e-4,
    "average": 0.0,  # momentum of a moving average of the weights, of which the last model is then made
    "accumulate": 1,  # steps whose gradients are added up before the weights change
    "precision": "auto",
    "seed": 0,
}


def read_options(texts) -> dict:
    """name=value as in DEFAULTS, with their types."""
    values = dict(DEFAULTS)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in DEFAULTS:
            sys.exit(f"{name}= is unknown, there are {', '.join(DEFAULTS)}")
        values[name] = type(DEFAULTS[name])(value)
    return values


def make_job(arguments, values: dict, folder: Path) -> Job:
    """The run that is asked for, its test images left out."""
    classes = tuple(arguments.classes.split(","))
    dataset = open_dataset(arguments.training, classes)
    test = open_dataset(arguments.test, classes).images if arguments.test else dataset.validation
    dataset = replace(dataset, validation=())
    size = ImageSize(values["side"], values["side"], False)
    config = describe_network(dataset, size, backbone=values["backbone"], rois_per_image=values["rois"])
    settings = TrainingSettings(
        name="recipe",
        logs=folder,
        epochs=10_000,
        steps_per_epoch=arguments.epoch_steps,
        validation_steps=0,
        images_per_device=values["batch"],
        learning_rate=values["learning_rate"],
        staged=bool(values["staged"]),
        minutes=arguments.minutes,
        precision=values["precision"],
        seed=values["seed"],
    )
    return Job(
        task=TASK,
        dataset=dataset,
        config=config,
        size=size,
        settings=settings,
        imagenet=bool(values["imagenet"]),
        held_out=test,
    )


def train_and_score(job: Job, values: dict, limit: int, detections: dict[str, dict]) -> list[dict]:
    """A row for each of SCORED and `detections`: minutes trained, steps and scores.

    values: as in DEFAULTS. limit: how many steps, 0 for as many as there is time for.
    detections: as DETECTIONS.
    """
    import keras

    from ann.backbones import imagenet
    from ann.devices.precision import choose_precision, use_precision
    from ann.training import loop
    from ann.training.schedule import TimeBudget
    from ann.weights import load_weights, save_model
    from maskrcnn.model_file import read_model
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network
    from maskrcnn.network.openvino import choose_parts
    from maskrcnn.network.training import TrainingNetwork
    from maskrcnn.preparation import make_feed
    from maskrcnn.scores.average_precision import score
    from maskrcnn.scores.scenes import detect_image

    settings, average = job.settings, values["average"]

    def make_optimizer(settings: TrainingSettings):
        return keras.optimizers.AdamW(
            settings.learning_rate,
            weight_decay=values["weight_decay"],
            global_clipnorm=loop.GRADIENT_NORM,
            use_ema=average > 0,
            ema_momentum=average or None,
            gradient_accumulation_steps=values["accumulate"] if values["accumulate"] > 1 else None,
        )

    loop.make_optimizer = make_optimizer
    with use_precision(choose_precision(settings.precision)):
        seed_everything(settings.seed)
        network = build_network(job.config)
        if job.imagenet:
            imagenet.transfer(imagenet.fetch(job.config.backbone), network.backbone, job.config)
        feed = make_feed(job, slice(None))
        model, clock = TrainingNetwork(network), Clock()
        begun = time.process_time()
        TimeBudget.used = lambda budget: (
            (len(clock.times) - 1) / limit if limit else (time.process_time() - begun) / budget.seconds
        )
        result = loop.run_epochs(TASK, model, job.config, feed, settings, Reporter(clock, sys.stderr))
        if average:
            model.optimizer.finalize_variable_values(model.trainable_variables)
            save_model(settings.model_path(result.last_epoch), legacy_layout(network), job.config)
    with settings.table_path.open(newline="") as file:
        epochs = list(csv.DictReader(file))
    steps = np.cumsum([int(row["steps"]) for row in epochs])
    minutes = np.cumsum(clock.steps()[1])[steps - 1] / 60
    done = steps / limit if limit else minutes / settings.minutes
    picked = {int(np.abs(done - share).argmin()) for share in SCORED}
    rows = []
    for number, (detection, changes) in itertools.product(sorted(picked), detections.items()):
        config = replace(job.config, **changes)
        network = build_network(config)
        load_weights(legacy_layout(network), read_model(settings.model_path(number + 1)))
        detector = Detector(network, choose_parts(network)[0])
        results = [detect_image(detector, image, config) for image in job.held_out]
        scores = score(results, job.config.classes)
        found = {f"{kind}_{key}": v for kind in ("box", "mask") for key, v in scores.summary(kind).items()}
        row = {
            "trained": round(float(minutes[number]), 2),
            "steps": int(steps[number]),
            "detection": detection,
        }
        rows.append(row | {name: round(found[name], 4) for name in SCORES})
    return rows


def plot() -> None:
    """Mask AP50 over the minutes, a line for each recipe, a chart for each set: the long runs, of seed 0."""
    from matplotlib.figure import Figure

    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0" and not row["minutes"]]
    sets, recipes = (list(dict.fromkeys(row[name] for row in rows)) for name in ("data", "recipe"))
    figure = Figure(figsize=(5.5 * len(sets), 4.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for number, recipe in enumerate(recipes):
            mine = [row for row in rows if (row["data"], row["recipe"]) == (name, recipe)]
            if not mine:
                continue
            axes.plot(
                [float(row["trained"]) for row in mine],
                [float(row["mask_AP50"]) for row in mine],
                marker="o",
                color=f"C{number}",
                label=recipe,
            )
        axes.set(
            title=name,
            xlabel="processor minutes",
            ylabel="mask AP50 on the test scenes",
            xscale="log",
            ylim=(0, 1),
        )
        ticks = [minutes for minutes in (1, 2, 5, 10, 20, 40) if minutes < 1.5 * axes.get_xlim()[1]]
        axes.set_xticks(ticks, map(str, ticks), minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(PICTURE, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("options", nargs="*", metavar="name=value")
    parser.add_argument("--training")
    parser.add_argument("--test")
    parser.add_argument("--classes")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--steps", type=int, default=0, help="so many, however long they take")
    parser.add_argument("--epoch-steps", type=int, default=40, help="between two models that can be scored")
    parser.add_argument("--detections", action="store_true", help="score other ways to detect too")
    parser.add_argument("--keep", help="file that the last model is copied to")
    parser.add_argument("--plot", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot:
        return plot()
    values = read_options(arguments.options)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(arguments, values, Path(folder))
        detections = DETECTIONS if arguments.detections else AS_TRAINED
        rows = train_and_score(job, values, arguments.steps, detections)
        if arguments.keep:
            last = max(Path(folder).glob("*_recipe_[0-9]*.h5"), key=lambda path: path.stat().st_mtime)
            shutil.copy(last, arguments.keep)
    changed = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    shared = {
        "data": Path(arguments.training).name,
        "recipe": arguments.recipe,
        "seed": values["seed"],
        "minutes": "" if arguments.steps else arguments.minutes,
        "tile": (job.config.tile_shape or job.config.image_shape)[0],
        "options": " ".join(f"{name}={value}" for name, value in changed.items() if name != "seed"),
    }
    add_rows(TABLE, [shared | row for row in rows], COLUMNS)
    print(json.dumps([shared | row for row in rows], indent=1))


if __name__ == "__main__":
    main()
