#!/usr/bin/env python3
"""A study of the classifier's networks: each from scratch and from ImageNet weights, on the same images.

For each run it tells the minutes, accuracy and balanced accuracy on the validation images of the best epoch,
and on images that were kept apart (at least one of each class). Written to --results: a table as CSV, the
learning curves, bars of the minutes, and bars of the probabilities that the images kept apart were given.

Small by default: four drawn classes of very unequal size, and a minute for each run. Unchanged on a GPU:

    make study-architectures STUDY_ARGS="--dataset photos --size 224 --minutes 60 --images 32"
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import RESULTS, Reporter, machine, markdown, software, write_csv

from ann.data.class_split import set_apart_by_class
from ann.data.dataset import Dataset
from ann.data.duplicates import join_duplicates
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.image_classes import open_class_files
from ann.data.samples.augmentation import ZOOM_LIMIT
from ann.data.split import Images, hold_out, split_dataset
from ann.devices.place import Place
from ann.errors import AnnError
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from ann.training.worker import train_worker
from class_images import write_class_folders
from classifier.config import STRIDE, UPPER
from classifier.preparation import describe_model
from classifier.task import TASK

STARTS = ("scratch", "transfer")
DRAWN = {"field": 60, "forest": 30, "town": 16, "water": 8}
COLUMNS = (
    *("backbone", "start", "minutes", "epochs", "steps"),
    *("accuracy", "balanced_accuracy", "test_accuracy", "test_balanced_accuracy", "own_class", "note"),
)
TITLES = {"own_class": "probability of the own class", "steps": "steps in all"}


def open_images(folder: Path, longest: int, seed: int) -> tuple[Dataset, Images]:
    """The images for training and validation, and those that are kept apart."""
    names, files, _ = find_class_files(folder, ())
    dataset = Dataset(classes=names, images=open_class_files(files, len(names), longest))
    dataset, apart = hold_out(join_duplicates(dataset), 0.1, seed, set_apart_by_class)
    return split_dataset(dataset, 0.25, seed, set_apart_by_class), apart


def train(backbone: str, start: str, data: tuple[Dataset, Images], arguments, logs: Path) -> dict:
    """Train one network: a row of the table, with the curves and what was told of the images kept apart."""
    dataset, apart = data
    row = {"backbone": backbone, "start": start}
    size = ImageSize(arguments.size, arguments.size, False, multiple=STRIDE, whole=True)
    transfer = start == "transfer"
    config = describe_model(
        dataset,
        size,
        backbone=backbone,
        label_smoothing=0.1,
        initial=None,
        other_classes=False,
        imagenet=transfer,
    )
    settings = TrainingSettings(
        name=f"{backbone}_{start}",
        prefix=TASK.prefix,
        logs=logs,
        epochs=arguments.epochs,
        steps_per_epoch=-(-len(dataset.images) // arguments.images),
        images_per_device=arguments.images,
        minutes=arguments.minutes,
        precision=arguments.precision,
        balance=True,
        staged=transfer,
        train_batch_norm=not transfer,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    job = Job(
        task=TASK,
        dataset=dataset,
        config=config,
        size=size,
        settings=settings,
        imagenet=transfer,
        held_out=apart,
    )
    try:
        result = train_worker(job, Reporter(messages=sys.stderr), Place())
    except AnnError as error:
        return row | {"note": str(error)}
    with settings.table_path.open() as file:
        epochs = list(csv.DictReader(file))
    best = epochs[result.best_epoch - 1]
    tested = json.loads(settings.test_path.read_text())
    own = [one["probabilities"][one["class"]] for one in tested["told"]]
    return row | {
        "minutes": round(sum(float(one["seconds"]) for one in epochs) / 60, 2),
        "epochs": len(epochs),
        "steps": sum(int(one["steps"]) for one in epochs),
        "accuracy": round(float(best["val_accuracy"]), 3),
        "balanced_accuracy": round(float(best["balanced_accuracy"]), 3),
        "test_accuracy": round(tested["all"]["accuracy"], 3),
        "test_balanced_accuracy": round(tested["all"]["balanced_accuracy"], 3),
        "own_class": round(sum(own) / len(own), 3),
        "curves": epochs,
        "told": tested["told"],
    }


def draw_curves(path: Path, rows: Sequence[dict]) -> None:
    """Accuracy and loss over the epochs, a column for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(rows), 5), layout="constrained")
    panels = figure.subplots(2, len(rows), squeeze=False, sharey="row")
    for column, row in enumerate(rows):
        epochs = [int(one["epoch"]) for one in row["curves"]]
        for axes, name in zip(panels[:, column], ("accuracy", "loss"), strict=True):
            for key, label in ((name, "training"), (f"val_{name}", "validation")):
                axes.plot(epochs, [float(one[key]) for one in row["curves"]], marker=".", label=label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.set_ylabel(name if column == 0 else "")
        panels[0, column].set_title(f"{row['backbone']}\n{row['start']}", fontsize=9)
        panels[1, column].set_xlabel("epoch")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_minutes(path: Path, rows: Sequence[dict]) -> None:
    """A bar for the minutes of each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.8 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([f"{row['backbone']}, {row['start']}" for row in rows], [row["minutes"] for row in rows])
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def draw_probabilities(path: Path, rows: Sequence[dict], classes: Sequence[str]) -> None:
    """The probabilities that one image of each class was given: a line of panels for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(classes), 1.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(classes), squeeze=False, sharex=True, sharey=True)
    for line, row in zip(panels, rows, strict=True):
        for axes, name in zip(line, classes, strict=True):
            one = next(one for one in row["told"] if one["class"] == name)
            values = [one["probabilities"][other] for other in classes]
            axes.bar(
                range(len(classes)), values, color=["C1" if other == name else "C0" for other in classes]
            )
            axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
            axes.set_ylim(0, 1)
        line[0].set_ylabel(f"{row['backbone']}\n{row['start']}", fontsize=7)
    for axes, name in zip(panels[0], classes, strict=True):
        axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=110)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="a folder for each class; else images are drawn")
    parser.add_argument("--backbones", nargs="+", default=list(UPPER), choices=list(UPPER))
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=STARTS)
    parser.add_argument("--size", type=int, default=96, help="side of the network's input, pixels")
    parser.add_argument("--images", type=int, default=16, help="per step")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each run")
    parser.add_argument("--epochs", type=int, default=30, help="of each run, if time suffices")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the CSV file and the figures"
    )
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    import keras

    print(f"{machine()}; {software()}; {arguments.size} x {arguments.size}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        images = arguments.dataset or write_class_folders(Path(folder, "images"), DRAWN, side=96)
        data = open_images(images, round(arguments.size * ZOOM_LIMIT), arguments.seed)
        for backbone in arguments.backbones:
            for start in arguments.starts:
                logs = Path(folder, f"{backbone}_{start}")
                logs.mkdir()
                keras.utils.clear_session()
                rows.append(train(backbone, start, data, arguments, logs))
                write_csv(
                    arguments.results / "architectures.csv",
                    [{name: row.get(name) for name in COLUMNS} for row in rows],
                    COLUMNS,
                )
    done = [row for row in rows if "told" in row]
    if done:
        draw_curves(arguments.results / "architectures_curves.png", done)
        draw_minutes(arguments.results / "architectures_minutes.png", done)
        draw_probabilities(arguments.results / "architectures_probabilities.png", done, data[0].classes)
    head = [TITLES.get(name, name.replace("_", " ")) for name in COLUMNS]
    print(markdown(head, [["" if row.get(name) is None else row[name] for name in COLUMNS] for row in rows]))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
