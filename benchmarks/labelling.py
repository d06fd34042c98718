#!/usr/bin/env python3
"""Where does labelling help most? Windows that label_next= puts first against windows drawn by chance.

usage: labelling.py --pool FOLDER --test FOLDER --classes CLASSES [--seed SEED] [--keep MODEL]

A model is trained on a few windows of the pool's scene, drawn by chance. It looks for objects in the whole
scene, whose other labels nobody has seen yet. Windows are then labelled until there are --labels more: those
that it is most uncertain of, or by chance. With each choice a model is trained anew, in as many steps, and
scored on the test scenes, cut and merged as i.ann.maskrcnn.detect does. Rows are added to
docs/benchmarks/labelling.csv.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import RESULTS, Clock, Reporter, add_rows, describe_network

from ann.data.dataset import Dataset, LabelledImage, part_of_image
from ann.data.pixels.windows import Window
from ann.data.readers.formats import open_dataset
from ann.inference.labelled_scene import LabelledScene
from ann.inference.tile_rows import Here
from ann.inference.tiles import cut_tiles
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings
from maskrcnn.detector import load_network
from maskrcnn.instances.pipeline import DetectionSettings, find_by_workers, network_finder
from maskrcnn.instances.uncertain import UncertainWindows
from maskrcnn.model_file import read_model
from maskrcnn.task import TASK

TABLE = RESULTS / "labelling.csv"
COLUMNS = ("seed", "choice", "windows", "labels", "box_AP50", "mask_AP", "mask_AP50", "mask_AR")
SIDE = 512  # pixels of a window
CROP = 256  # pixels that a step sees


def cut(scene: LabelledImage) -> dict[tuple[int, int], LabelledImage]:
    """The windows of a scene by their corner, as `UncertainWindows` has them."""
    windows = {}
    for row in range(0, scene.height, SIDE):
        for column in range(0, scene.width, SIDE):
            height, width = min(SIDE, scene.height - row), min(SIDE, scene.width - column)
            window = Window(row=row, column=column, height=height, width=width)
            windows[row, column] = part_of_image(scene, window)
    return windows


def labels_of(windows: Sequence[LabelledImage]) -> int:
    """How many objects are labelled; one that lies in two windows counts twice."""
    return sum(sum(window.instance_counts) for window in windows)


def choose(order: Sequence[tuple[int, int]], windows: dict, labels: int) -> list[tuple[int, int]]:
    """The first windows that have so many labels together."""
    chosen = []
    for place in order:
        if labels_of([windows[one] for one in chosen]) >= labels:
            break
        chosen.append(place)
    return chosen


def train(images: Sequence[LabelledImage], classes: tuple[str, ...], arguments, folder: Path):
    """The trained network, from ImageNet weights, in float32, and the path of its model."""
    from ann.backbones import imagenet
    from ann.devices.precision import choose_precision, use_precision
    from ann.training.loop import run_epochs
    from maskrcnn.network.model import build_network
    from maskrcnn.network.training import TrainingNetwork
    from maskrcnn.preparation import make_feed

    dataset = Dataset(classes=classes, images=tuple(images))
    size = ImageSize(CROP, CROP, False)
    config = describe_network(dataset, size, backbone=arguments.backbone)
    settings = TrainingSettings(
        name="labelling",
        logs=folder,
        epochs=1,
        steps_per_epoch=arguments.steps,
        validation_steps=0,
        images_per_device=2,
        learning_rate=5e-4,
        staged=False,
        seed=arguments.seed,
    )
    job = Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings, imagenet=True)
    with use_precision(choose_precision("auto")):
        seed_everything(arguments.seed)
        network = build_network(config)
        imagenet.transfer(imagenet.fetch(config.backbone), network.backbone, config)
        feed = make_feed(job, slice(None))
        run_epochs(TASK, TrainingNetwork(network), config, feed, settings, Reporter(Clock(), sys.stderr))
    return load_network(read_model(settings.model_path(1)), config), settings.model_path(1)


def detector_of(network):
    """The network as a detector."""
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.openvino import choose_parts

    return Detector(network, choose_parts(network)[0])


def most_uncertain(network, scene: LabelledImage) -> list[tuple[int, int]]:
    """Corners of the windows of a scene, as label_next= ranks them."""
    config = replace(network.config, image_shape=(SIDE, SIDE))
    settings = DetectionSettings.for_model(config, find_doubtful=True)
    windows = UncertainWindows(cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap))
    detector = functools.partial(detector_of(network), confidence=settings.lowest_score)
    workers = Here(network_finder(detector, settings))
    for _ in find_by_workers(LabelledScene(scene), workers, settings, watch=windows.add):
        pass
    return [(one.window.row, one.window.column) for one in windows.ranked()]


def scores_of(network, test: Sequence[LabelledImage]) -> dict[str, float]:
    """Scores on whole scenes."""
    from maskrcnn.scores.average_precision import score
    from maskrcnn.scores.scenes import detect_image

    detector = detector_of(network)
    results = [detect_image(detector, image, network.config) for image in test]
    scores = score(results, network.config.classes)
    return {
        f"{kind}_{name}": round(value, 4)
        for kind in ("box", "mask")
        for name, value in scores.summary(kind).items()
    }


def run(arguments) -> list[dict]:
    """A row for the first windows, the uncertain ones and those by chance."""
    classes = tuple(arguments.classes.split(","))
    (scene,) = open_dataset(arguments.pool, classes).images
    test = open_dataset(arguments.test, classes).images
    windows = cut(scene)
    random = np.random.default_rng(arguments.seed)
    places = list(windows)
    order = [places[index] for index in random.permutation(len(places))]
    first = choose(order, windows, arguments.first_labels)
    rows = []
    with tempfile.TemporaryDirectory() as folder:

        def train_on(choice: str, chosen: list[tuple[int, int]]):
            images = [windows[place] for place in chosen if labels_of([windows[place]])]
            logs = Path(folder, choice)
            logs.mkdir()
            network, path = train(images, classes, arguments, logs)
            row = {"seed": arguments.seed, "choice": choice, "windows": len(chosen)}
            rows.append(row | {"labels": labels_of(images)} | scores_of(network, test))
            print(json.dumps(rows[-1]), file=sys.stderr)
            if arguments.keep:
                shutil.copy(path, f"{arguments.keep}_{choice}.h5")
            return network

        network = train_on("first", first)
        left = [place for place in order if place not in first]
        ranked = [place for place in most_uncertain(network, scene) if place in left]
        ranked += [place for place in left if place not in ranked]
        train_on("uncertain", first + choose(ranked, windows, arguments.labels))
        train_on("chance", first + choose(left, windows, arguments.labels))
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", required=True, help="training dataset of one scene")
    parser.add_argument("--test", required=True, help="training dataset to score on")
    parser.add_argument("--classes", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-labels", type=int, default=12)
    parser.add_argument("--labels", type=int, default=40, help="to be added")
    parser.add_argument("--steps", type=int, default=200, help="of two images")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--keep", help="beginning of the names of files that the models are copied to")
    arguments = parser.parse_args()
    add_rows(TABLE, [{name: row[name] for name in COLUMNS} for row in run(arguments)], COLUMNS)


if __name__ == "__main__":
    main()
