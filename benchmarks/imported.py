#!/usr/bin/env python3
"""How long a tile takes an imported model here, and torchvision itself: the same weights, image and machine.

Prints a Markdown table of medians and ratios, and saves it as CSV. A tile of --side pixels is resized to 800
pixels as torchvision does it; what is timed begins with its bytes and ends with its masks as pixels. The
weights are seeded random ones of `maskrcnn_resnet50_fpn`, with which there are 100 detections in any image.

--torchvision names the Python of an environment with torchvision, by default this one; where it has none,
only this program is measured. Each program runs in a process of its own, torchvision before and after the
others. Processor seconds (of all threads, in brackets) depend less on other work than elapsed seconds do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import RESULTS, ROOT, machine, markdown, write_csv

sys.path.append(str(ROOT / "tests"))
from foreign_weights import torchvision_weights, write_safetensors

SEED = 1
RUNTIMES = ("torchvision", "keras", "openvino", "openvino bfloat16")


def image(side: int) -> np.ndarray:
    """(side, side, 3) uint8."""
    return np.random.default_rng(SEED).integers(0, 256, (side, side, 3)).astype(np.uint8)


def torchvision_program(side: int) -> Callable[[], int]:
    """Detects as torchvision does; returns the number of detections."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).eval()
    tensors = torchvision_weights(classes=3, seed=SEED)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    pixels = image(side)

    def detect() -> int:
        with torch.no_grad():
            found = network([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])[0]
        return int((found["masks"] >= 0.5).flatten(1).any(1).sum())

    return detect


def own_program(side: int, runtime: str) -> Callable[[], int]:
    """Detects with the imported model, in the way of the module."""
    from ann.inference.tile_rows import TileBatch
    from ann.inference.tiles import Tile
    from maskrcnn.detector import load_network
    from maskrcnn.foreign import open_model
    from maskrcnn.instances.pipeline import DetectionSettings, network_finder
    from maskrcnn.network.inference import Detector, compiled_parts
    from maskrcnn.network.openvino import openvino_parts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_safetensors(path, torchvision_weights(classes=3, seed=SEED))
        model = open_model(path)
        network = load_network(model, model.config)
    if runtime == "keras":
        parts = compiled_parts(network)
    else:
        parts = openvino_parts(network, precision="bf16" if "bfloat16" in runtime else "f32")
    settings = DetectionSettings.for_model(model.config, confidence=0.0)
    find = network_finder(Detector(network, parts), settings)
    tile = Tile(row=0, column=0, height=side, width=side)
    batch = TileBatch(tiles=(tile,), pixels=(image(side),), valid=(np.ones((side, side), bool),))
    return lambda: len(find(batch)[0])


def measure(runtime: str, side: int, repeats: int) -> dict:
    """Medians of one program in this process."""
    program = torchvision_program(side) if runtime == "torchvision" else own_program(side, runtime)
    times, count = [], 0
    for repeat in range(repeats + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        count = program()
        if repeat:  # the first one compiles
            times.append((time.perf_counter() - start, time.process_time() - start_cpu))
    seconds, processor = (round(statistics.median(column), 3) for column in zip(*times, strict=True))
    return {"runtime": runtime, "seconds": seconds, "cpu_seconds": processor, "detections": count}


def measured_apart(runtime: str, arguments: argparse.Namespace) -> dict | None:
    """`measure` in a process of its own; None if that has no such program."""
    python = arguments.torchvision if runtime == "torchvision" else sys.executable
    paths = os.pathsep.join(str(ROOT / name) for name in ("lib", "tests"))
    done = subprocess.run(
        [
            python,
            __file__,
            "--measure",
            runtime,
            f"--side={arguments.side}",
            f"--repeats={arguments.repeats}",
        ],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print(f"{runtime} was not measured", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torchvision", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--side", type=int, default=512, help="of the tile, pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES[:3], choices=RUNTIMES)
    parser.add_argument("--measure", choices=RUNTIMES, help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, default=RESULTS / "imported.csv")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.side, arguments.repeats)))
        return
    print(machine(), flush=True)
    again = ["torchvision"] if "torchvision" in arguments.runtimes else []
    rows = [measured_apart(runtime, arguments) for runtime in [*arguments.runtimes, *again]]
    rows = [row for row in rows if row]
    write_csv(arguments.csv, rows, ("runtime", "seconds", "cpu_seconds", "detections"))
    base = [row for row in rows if row["runtime"] == "torchvision"]
    cells = []
    for row in rows:
        ratios = ""
        if base:
            known = {key: statistics.mean(one[key] for one in base) for key in ("seconds", "cpu_seconds")}
            ratios = " ({:.2f})".format(known["cpu_seconds"] / row["cpu_seconds"])
            ratios = f"{known['seconds'] / row['seconds']:.2f}{ratios}"
        times = f"{row['seconds']:.2f} ({row['cpu_seconds']:.2f})"
        cells.append([row["runtime"], times, ratios, row["detections"]])
    print(markdown(("runtime", "seconds", "torchvision / this", "detections"), cells))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
