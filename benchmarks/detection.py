#!/usr/bin/env python3
"""How long a tile takes to detect in, and how much of it is the bare network: Keras against OpenVINO.

Prints a Markdown table of medians and ratios, and saves it as CSV. The steps, each with all before it:
  network   features of the tile, box head on all its proposals, mask head on one chunk of 32 regions
  detector  network, proposals, pooling, choice of detections (`Detector`)
  tile      detector, reading, scaling, drawing of masks, merging (`detect_scene`, a scene of one tile)

Weights and pixels are random, so the confidence is set to where --detections of a tile survive: the number of
masks is that of a scene with as many objects. Steps and runtimes take turns, so other work on the machine
slows all of them alike. Processor seconds (of all threads, in brackets) depend less on that work than elapsed
seconds do, but mean nothing on a GPU.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import RESULTS, machine, software, write_csv  # before Keras: it sets TensorFlow's log level

# isort: split
import keras
import numpy as np
from keras import ops

from ann.data.samples.scaling import scale_pixels
from ann.devices.available import gpu_in_use
from ann.inference.openvino import default_precision, openvino_version
from ann.inference.scene import ArrayScene
from ann.training.seeds import seed_everything
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.pipeline import DetectionSettings, detect_scene
from maskrcnn.network.heads import BOX_POOL_SIZE, MASK_POOL_SIZE
from maskrcnn.network.inference import MASK_CHUNK, Detector, compiled_parts
from maskrcnn.network.model import build_network
from maskrcnn.network.openvino import openvino_parts

STEPS = ("network", "detector", "tile")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; medians per tile in elapsed seconds and, cpu, in processor seconds."""

    backbone: str
    size: int  # side of the tile, pixels
    precision: str
    runtime: str
    network: float
    detector: float
    tile: float
    network_cpu: float
    detector_cpu: float
    tile_cpu: float
    detections: int
    repeats: int


def measure(backbone: str, size: int, precision: str, arguments) -> list[Row]:
    """Rows of all runtimes for one network and one size of tiles."""
    seed_everything(1)
    keras.config.set_dtype_policy("float32" if precision == "float32" else "mixed_bfloat16")
    config = MaskRCNNConfig(
        classes=("one", "two"),
        backbone=backbone,
        image_shape=(size, size),
        band_mean=(127.5,) * 3,
        band_scale=(73.6,) * 3,  # of evenly distributed pixels, so that the new network's scores differ
    )
    network = build_network(config)
    pixels = np.random.default_rng(1).integers(0, 255, (size, size, 3), dtype=np.uint8)

    steps = {}  # runtime -> step -> callable
    confidence = None
    for runtime in arguments.runtimes:
        if runtime == "openvino":
            parts = openvino_parts(network, precision="f32" if precision == "float32" else "bf16")
        else:
            parts = compiled_parts(network)
        detector = Detector(network, parts)
        if confidence is None:
            confidence = surviving(detector, scaled(pixels, config), arguments.detections)
        steps[runtime] = make_steps(
            network, parts, functools.partial(detector, confidence=confidence), pixels
        )

    times = {(runtime, step): [] for runtime in steps for step in STEPS}
    counts = {}
    for repeat in range(arguments.repeats + 1):
        for runtime, step in times:
            start, start_cpu = time.perf_counter(), time.process_time()
            result = steps[runtime][step]()
            if repeat:  # the first call compiles
                spent = time.perf_counter() - start, time.process_time() - start_cpu
                times[runtime, step].append(spent)
            if step == "detector":
                counts[runtime] = result
    return [
        Row(
            **{step: median(times[runtime, step], 0) for step in STEPS},
            **{f"{step}_cpu": median(times[runtime, step], 1) for step in STEPS},
            **{"backbone": backbone, "size": size, "precision": precision, "runtime": runtime},
            **{"detections": counts[runtime], "repeats": arguments.repeats},
        )
        for runtime in steps
    ]


def median(spent: list[tuple[float, float]], index: int) -> float:
    return round(statistics.median(pair[index] for pair in spent), 3)


def surviving(detector: Detector, images: np.ndarray, count: int) -> float:
    """The confidence between the scores of detection `count` and the next one."""
    scores = detector(images)[0].scores
    if len(scores) <= count:
        return 0.0
    return float((scores[count - 1] + scores[count]) / 2)


def scaled(pixels: np.ndarray, config: MaskRCNNConfig) -> np.ndarray:
    """A batch of one image."""
    return scale_pixels(pixels, config.band_mean, config.band_scale)[None]


def make_steps(network, parts, detector, pixels: np.ndarray) -> dict:
    """The three steps as callables without arguments; what they compute is on the host when they return."""
    config, random = network.config, np.random.default_rng(2)
    images = scaled(pixels, config)
    channels = network.feature_pyramid.outputs[0].shape[-1]
    boxes, masks = (
        random.random((rows, side, side, channels), dtype=np.float32)
        for rows, side in ((config.proposals_detection, BOX_POOL_SIZE), (MASK_CHUNK, MASK_POOL_SIZE))
    )
    scene = ArrayScene(pixels)
    settings = DetectionSettings.for_model(config, confidence=0)

    def bare_network():
        for part, inputs in ((parts.features, images), (parts.box_head, boxes), (parts.mask_head, masks)):
            for output in keras.tree.flatten(part(inputs)):
                ops.convert_to_numpy(output)

    return {
        "network": bare_network,
        "detector": lambda: len(detector(images)[0].scores),
        "tile": lambda: sum(len(block.instances) for block in detect_scene(scene, detector, settings)),
    }


def table(rows: list[Row]) -> str:
    """Medians, and as ratios what the pipeline adds and what OpenVINO gains on the whole tile."""
    lines = [
        "| backbone | side | precision | runtime | network s | detector s | tile s | tile / network "
        "| Keras / this | detections |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    bases = {(row.backbone, row.size, row.precision): row for row in rows if row.runtime == "keras"}
    for row in rows:
        base = bases.get((row.backbone, row.size, row.precision), row)
        cells = [row.backbone, str(row.size), row.precision, row.runtime]
        cells += [f"{getattr(row, step):.2f} ({getattr(row, f'{step}_cpu'):.2f})" for step in STEPS]
        cells.append(f"{row.tile / row.network:.2f} ({row.tile_cpu / row.network_cpu:.2f})")
        cells.append(f"{base.tile / row.tile:.2f} ({base.tile_cpu / row.tile_cpu:.2f})")
        lines.append(f"| {' | '.join(cells)} | {row.detections} |")
    return "\n".join(lines)


def programs() -> str:
    """What this ran with, in a line."""
    openvino = openvino_version() or "not installed"
    return f"{machine()}{', GPU' if gpu_in_use() else ''}; {software()}, OpenVINO {openvino}"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    openvino = ["openvino"] if openvino_version() else []
    fast_bfloat16 = gpu_in_use() or (openvino and default_precision() == "bfloat16")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides of tiles, pixels")
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet101"])
    parser.add_argument("--runtimes", nargs="+", default=["keras", *openvino], choices=["keras", "openvino"])
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "bfloat16"] if fast_bfloat16 else ["float32"],
        choices=["float32", "bfloat16"],
        help="bfloat16 by default only where the hardware computes in it",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--detections", type=int, default=30, help="detections per tile")
    parser.add_argument("--csv", type=Path, default=RESULTS / "detection.csv")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    print(programs(), flush=True)
    rows = []
    for size in arguments.sizes:
        for backbone in arguments.backbones:
            for precision in arguments.precisions:
                rows += measure(backbone, size, precision, arguments)
                # after each network, so that an interrupted run keeps what it has
                write_csv(arguments.csv, map(asdict, rows), list(Row.__dataclass_fields__))
                print(f"{backbone} {size} {precision} measured", file=sys.stderr, flush=True)
    print(f"{programs()}, at the end\n")
    print(table(rows))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
