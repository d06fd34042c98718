#!/usr/bin/env python3
"""What detection does beside the network, as it is done and as it was done before, in one run.

  import    Keras and its backend in a new process: alone, or with all that it finds, as for plots and tables
  network   a network made, to be loaded from a file: its weights left empty, or drawn first
  kernels   a network made ready for OpenVINO: its kernels given as arrays, or by way of lists of numbers
  turns     sightings of one tile in eight turns merged: compared where their boxes allow it, or all with all

Prints a Markdown table with processor seconds of a call each, and how much the peak of the memory grew.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from measuring import ROOT, markdown, peak_megabytes

from ann.data.outlines.masks import CroppedMask
from ann.data.samples.augmentation import ORIENTATIONS
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances import turns
from maskrcnn.instances.instances import Instance


def measure(work: Callable[[], object]) -> tuple[str, int]:
    """Processor seconds of a call, and MB that the peak of the memory grew by."""
    peak, start = peak_megabytes(), time.process_time()
    work()
    return f"{time.process_time() - start:.2f}", peak_megabytes() - peak


def measure_import() -> list[tuple]:
    """Whole processes."""
    rows = []
    alone = "from ann.packages import import_keras; import_keras()"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'lib'}{os.pathsep}{ROOT / 'benchmarks'}"}
    for how, code in (("alone", alone), ("all", "import keras")):
        code += "; import time, measuring; print(time.process_time(), measuring.peak_megabytes())"
        command = [sys.executable, "-c", code]
        for _ in range(2):  # files are read from disk in the first one
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        seconds, megabytes = done.stdout.split()
        rows.append(("import", how, f"{float(seconds):.2f}", int(megabytes)))
    return rows


def describe(backbone: str) -> MaskRCNNConfig:
    """A network for images of 256 x 256 pixels."""
    return MaskRCNNConfig(classes=("a",), backbone=backbone, image_shape=(256, 256))


def measure_network(backbone: str) -> list[tuple]:
    """The whole network."""
    from ann.backbones.initial import nothing_drawn
    from maskrcnn.network.model import build_network

    rows = []
    for how, context in (("left empty", nothing_drawn()), ("drawn", contextlib.nullcontext())):
        with context:
            measured = measure(lambda: build_network(describe(backbone)))
        rows.append((f"network with {backbone}", how, *measured))
    return rows


def measure_kernels(backbone: str) -> list[tuple]:
    """The backbone and the box head."""
    from ann.inference import openvino_graph
    from maskrcnn.network.model import build_network

    network = build_network(describe(backbone))
    channels = network.feature_pyramid.outputs[0].shape[-1]

    def make_ready() -> None:
        openvino_graph.openvino_model(network.backbone, (1, 256, 256, 3))
        openvino_graph.openvino_model(network.box_head, (1, 8, 7, 7, channels))

    rows = [(f"kernels of {backbone}", "arrays", *measure(make_ready))]
    openvino_graph.opset.constant = lambda kernel: kernel  # then operations make the lists
    return [*rows, (f"kernels of {backbone}", "lists", *measure(make_ready))]


def measure_turns(count: int) -> list[tuple]:
    """Rectangles of 10 to 30 pixels, eight near each other, in a tile of 1200."""
    random = np.random.default_rng(count)
    places = random.integers(0, 1200, (count // ORIENTATIONS, 2))
    sightings = []
    for number in range(count):
        row, column = places[number % len(places)] + random.integers(-3, 4, 2)
        mask = CroppedMask(row=int(row), column=int(column), pixels=np.ones(random.integers(10, 30, 2), bool))
        turn = number // len(places) % ORIENTATIONS
        sightings.append((turn, Instance(mask=mask, class_id=1, score=random.random())))
    rows = [(f"{count} sightings", "by boxes", *measure(lambda: turns.merge_turns(sightings, 0.5)))]
    by_boxes, turns._rivals = turns._rivals, lambda masks: [range(number) for number in range(len(masks))]
    rows.append((f"{count} sightings", "all with all", *measure(lambda: turns.merge_turns(sightings, 0.5))))
    turns._rivals = by_boxes
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--sightings", type=int, nargs="+", default=[400, 3200])
    arguments = parser.parse_args()
    rows = measure_import() + measure_network(arguments.backbone) + measure_kernels(arguments.backbone)
    for count in arguments.sightings:
        rows += measure_turns(count)
    print(markdown(("work", "how", "s", "MB"), rows))


if __name__ == "__main__":
    main()
