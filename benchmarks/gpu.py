#!/usr/bin/env python3
"""Training and detection on one GPU: this library on JAX and PyTorch, and torchvision's Mask R-CNN beside it.

Needs no network and no data: images, boxes and masks are drawn at random, the same for all programs. Each
program runs in a process of its own, and each of its parts is left out with a note if it fails or the time
is over. Prints a Markdown table and saves it as CSV, after each part.

  ceiling    the card's matrix rate in bfloat16: a product of large random matrices
  parity     outputs before the heads on the card against those on the CPU, float32: the norm of the
             difference over that of the CPU's, as the backend is set and with TF32 turned off
  train      a training step as the module makes it: batch from main memory, targets, losses, clipping, AdamW,
             all layers trained but batch normalisation, masks as large as the images
  detect     detection in tiles from main memory to boxes, scores and masks in main memory

torchvision's network trains with its own heads and losses, fixed batch normalisation, AdamW and clipping too,
under autocast; its detection leaves out that masks are put into the image, as ours does here.
`share` is the share of the measured matrix rate, by the operations that PyTorch counts in the products and
convolutions of a step; JAX has those of the same network. Peak memory is the card's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measuring import RESULTS, markdown, write_csv
from torchvision_network import build_torchvision

PROGRAMS = ("torch", "torchvision", "jax")
COLUMNS = (
    "program",
    "part",
    "precision",
    "batch",
    "median_s",
    "images_per_s",
    "TFLOP_per_s",
    "share",
    "first_s",
    "peak_MB",
    "error",
    "card",
    "note",
)
CLASSES = ("building", "tank")
OBJECTS = 20  # in each image
DETECTIONS = 100  # that survive in a tile, at most
TORCH = ("torch", "torchvision")


def draw_batch(config, batch: int, seed: int) -> dict[str, np.ndarray]:
    """A training batch of random pixels and rectangular objects, as `ann.data.samples.batches` makes them."""
    from maskrcnn.network.training import anchor_count

    random = np.random.default_rng(seed)
    side, places = config.image_shape[0], config.max_instances
    boxes = np.zeros((batch, places, 4), np.float32)
    masks = np.zeros((batch, places, side, side), np.uint8)
    class_ids = np.zeros((batch, places), np.int32)
    low = random.integers(0, side * 3 // 4, (batch, OBJECTS, 2))
    high = low + random.integers(max(side // 32, 2), side // 4, (batch, OBJECTS, 2))
    boxes[:, :OBJECTS] = np.concatenate([low, high], axis=-1)
    class_ids[:, :OBJECTS] = random.integers(1, config.class_count, (batch, OBJECTS))
    for image in range(batch):
        for place in range(OBJECTS):
            (y1, x1), (y2, x2) = low[image, place], high[image, place]
            masks[image, place, y1:y2, x1:x2] = 1
    return {
        "images": random.normal(size=(batch, side, side, config.bands)).astype(np.float32),
        "class_ids": class_ids,
        "boxes": boxes,
        "masks": masks,
        "anchor_noise": random.random((batch, anchor_count(config)), dtype=np.float32),
        "roi_noise": random.random((batch, config.roi_candidates), dtype=np.float32),
    }


def time_calls(call: Callable[[int], object], repeats: int, wait: Callable[[], None]) -> dict:
    """Seconds of `call(number)`: of the first, and the median of `repeats` after two."""
    seconds = []
    for number in range(repeats + 2):
        wait()
        start = time.perf_counter()
        call(number)
        wait()
        seconds.append(time.perf_counter() - start)
    return {"median_s": statistics.median(seconds[2:]), "first_s": round(seconds[0], 2)}


class Card:
    """What the programs need to know of the device, on either framework."""

    def __init__(self, program: str):
        self.torch = program in TORCH
        if self.torch:
            import torch

            self.gpu = torch.cuda.is_available()
            self.name = torch.cuda.get_device_name() if self.gpu else "CPU"
        else:
            import jax

            self.device = jax.local_devices()[0]
            self.gpu = self.device.platform == "gpu"
            self.name = self.device.device_kind if self.gpu else "CPU"

    def wait(self) -> None:
        """Until all that was started is done. JAX's results are waited for where they are read."""
        if self.torch and self.gpu:
            import torch

            torch.cuda.synchronize()

    def start_peak(self) -> None:
        """Peak memory is counted from here (PyTorch), or over the whole process (JAX)."""
        if self.torch and self.gpu:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict:
        if not self.gpu:
            return {}
        if self.torch:
            import torch

            return {"peak_MB": torch.cuda.max_memory_reserved() // 2**20}
        return {"peak_MB": self.device.memory_stats()["peak_bytes_in_use"] // 2**20}


def count_operations(call: Callable[[], object]) -> float:
    """Floating-point operations of products and convolutions in a call on PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def describe(arguments):
    """The network's description."""
    from maskrcnn.config import MaskRCNNConfig

    return MaskRCNNConfig(
        classes=CLASSES,
        backbone=arguments.backbone,
        image_shape=(arguments.size,) * 2,
        band_mean=(0.0,) * 3,
        max_detections=DETECTIONS,
    )


def measure_ceiling(arguments, card: Card) -> dict:
    """A product of two square matrices in bfloat16."""
    import torch

    side = arguments.matrix
    device = "cuda" if card.gpu else "cpu"
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    timed = time_calls(lambda number: one @ other, 20, card.wait)
    return timed | {"TFLOP_per_s": round(2 * side**3 / timed["median_s"] / 1e12, 3)}


def measure_parity(arguments, card: Card, exact: bool) -> dict:
    """The largest relative difference of an output between card and CPU."""
    import keras

    from maskrcnn.network.model import build_network

    def outputs(network):
        return [keras.ops.convert_to_numpy(output) for output in network.features(images)]

    if exact and card.torch:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    elif exact:
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    config = describe(arguments)
    side = min(arguments.size, 512)
    images = np.random.default_rng(3).normal(size=(1, side, side, config.bands)).astype(np.float32)
    network = build_network(config)
    found = outputs(network)
    weights = network.get_weights()
    with keras.device("cpu"):
        reference = build_network(config)
        reference.set_weights(weights)
        expected = outputs(reference)
    if exact and card.torch:
        torch.backends.cudnn.allow_tf32 = True  # its default
    elif exact:
        jax.config.update("jax_default_matmul_precision", None)
    errors = [
        float(np.linalg.norm(one - other) / np.linalg.norm(other))
        for one, other in zip(found, expected, strict=True)
    ]
    return {"error": f"{max(errors):.2e}"}


def measure_training(arguments, card: Card, batch: int) -> dict:
    """Steps of this library's network."""
    import keras

    from maskrcnn.network.model import build_network
    from maskrcnn.network.stages import set_trainable
    from maskrcnn.network.training import TrainingNetwork

    config = describe(arguments)
    model = TrainingNetwork(build_network(config))
    set_trainable(model.network, "all", False)
    optimizer = keras.optimizers.AdamW(1e-5, weight_decay=1e-4, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, jit_compile=not card.torch)
    optimizer.build(model.trainable_variables)
    batches = [draw_batch(config, batch, seed) for seed in range(2)]

    def step(number):
        losses = model.train_on_batch(batches[number % 2], return_dict=True)
        return {name: float(value) for name, value in losses.items()}

    timed = time_calls(step, arguments.steps, card.wait)
    if card.torch:
        timed["operations"] = count_operations(lambda: step(0))
    return timed


def measure_detection(arguments, card: Card, batch: int) -> dict:
    """Tiles of this library's network."""
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.model import build_network

    config = describe(arguments)
    detector = Detector(build_network(config))
    shape = (batch, *config.image_shape, config.bands)
    images = [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in range(2)]
    return time_calls(lambda number: detector(images[number % 2], confidence=0.0), arguments.steps, card.wait)


def torchvision_network(arguments, card: Card):
    """torchvision's network with the same anchors and counts of regions."""
    config = describe(arguments)
    model = build_torchvision(config, lowest_score=0.0, detections=DETECTIONS)
    return config, model.to("cuda" if card.gpu else "cpu")


def measure_torchvision_training(arguments, card: Card, batch: int) -> dict:
    """Steps of torchvision's network on the same batches."""
    import torch

    config, model = torchvision_network(arguments, card)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=1e-4)
    batches = [draw_batch(config, batch, seed) for seed in range(2)]
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()

    def step(number):
        images, targets = [], []
        drawn = batches[number % 2]
        for index in range(batch):
            kept = drawn["class_ids"][index] > 0
            images.append(torch.from_numpy(drawn["images"][index]).to(device).permute(2, 0, 1))
            boxes = torch.from_numpy(drawn["boxes"][index][kept][:, [1, 0, 3, 2]])
            labels = torch.from_numpy(drawn["class_ids"][index][kept].astype(np.int64))
            masks = torch.from_numpy(drawn["masks"][index][kept])
            target = {"boxes": boxes, "labels": labels, "masks": masks}
            targets.append({name: value.to(device) for name, value in target.items()})
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(loss.detach())

    timed = time_calls(step, arguments.steps, card.wait)
    timed["operations"] = count_operations(lambda: step(0))
    return timed


def measure_torchvision_detection(arguments, card: Card, batch: int) -> dict:
    """Tiles of torchvision's network."""
    import torch

    config, model = torchvision_network(arguments, card)
    device = next(model.parameters()).device
    model.eval()
    model.transform.postprocess = lambda found, shapes, originals: found  # masks stay small, as ours here
    shape = (batch, config.bands, *config.image_shape)
    images = [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in range(2)]

    @torch.no_grad()
    def detect(number):
        tiles = list(torch.from_numpy(images[number % 2]).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            found = model(tiles)
        return [{name: value.float().cpu() for name, value in tile.items()} for tile in found]

    return time_calls(detect, arguments.steps, card.wait)


def parts(program: str, arguments) -> Iterator[tuple[dict, Callable]]:
    """What a program measures, the most important first: what it is called, and its function."""
    if program == "torch":
        yield {"part": "ceiling", "precision": "bfloat16"}, measure_ceiling
    if program == "torchvision":
        train, detect = measure_torchvision_training, measure_torchvision_detection
    else:
        train, detect = measure_training, measure_detection
    order = sorted(arguments.batches)
    for batch in order:
        yield (
            {"part": "train", "precision": "bfloat16", "batch": batch},
            lambda arguments, card, batch=batch: train(arguments, card, batch),
        )
        if batch in (min(order), max(order)):
            for precision in ("bfloat16", "float32"):
                yield (
                    {"part": "detect", "precision": precision, "batch": batch},
                    lambda arguments, card, batch=batch: detect(arguments, card, batch),
                )
    if program != "torchvision":
        for exact in (False, True):
            yield (
                {"part": "parity", "precision": "float32", "note": "TF32 off" if exact else "as it is set"},
                lambda arguments, card, exact=exact: measure_parity(arguments, card, exact),
            )


def run_parts(program: str, arguments) -> None:
    """Measure in this process; a line of JSON for each part, when it is done."""
    end = time.monotonic() + arguments.seconds
    if program != "torchvision":
        import keras
    card = Card(program)
    for called, measure in parts(program, arguments):
        row = {"program": program, "card": card.name} | called
        arguments.precision = called["precision"]
        if time.monotonic() > end:
            row["note"] = "left out: the time is over"
        else:
            try:
                if program != "torchvision":
                    policy = "mixed_bfloat16" if arguments.precision == "bfloat16" else "float32"
                    keras.config.set_dtype_policy(policy)
                    keras.utils.set_random_seed(1)
                card.start_peak()
                row |= measure(arguments, card)
                row |= card.peak()
            except Exception as error:
                traceback.print_exc()
                row["note"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print("ROW", json.dumps(row), flush=True)


def complete(rows: list[dict]) -> list[dict]:
    """Rows with rates that need other rows: of images, of operations, and the share of the ceiling."""
    ceiling = next(
        (row["TFLOP_per_s"] for row in rows if "TFLOP_per_s" in row and row["part"] == "ceiling"), 0
    )
    counted = {(row["program"], row["batch"]): row["operations"] for row in rows if "operations" in row}
    completed = []
    for row in rows:
        row = dict(row)
        if "median_s" in row and row.get("batch"):
            row["images_per_s"] = round(row["batch"] / row["median_s"], 2)
        program = "torch" if row["program"] == "jax" else row["program"]
        operations = counted.get((program, row.get("batch")))
        if row["part"] == "train" and "median_s" in row and operations:
            row["TFLOP_per_s"] = round(operations / row["median_s"] / 1e12, 2)
            if ceiling:
                row["share"] = f"{row['TFLOP_per_s'] / ceiling:.1%}"
        if "median_s" in row:
            row["median_s"] = round(row["median_s"], 5)
        row.pop("operations", None)
        completed.append(row)
    return completed


def run_program(program: str, arguments, seconds: float) -> Iterator[dict]:
    """Rows of a program, as they come; a note as a row if it dies or must be ended."""
    command = [sys.executable, __file__, "--measure", program, "--seconds", str(seconds * 0.85)]
    for name in ("size", "steps", "backbone", "matrix"):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--batches", *map(str, arguments.batches)]
    backend = "torch" if program in TORCH else program
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "KERAS_BACKEND": backend}
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=max(seconds, 1)
        )
        output = done.stdout
        failure = f"failed: ended with {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode()
        failure = "left out: the time is over"
    for line in output.splitlines():
        if line.startswith("ROW "):
            yield json.loads(line[4:])
    if failure:
        yield {"program": program, "part": "the rest", "note": failure}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    parser.add_argument("--minutes", type=float, default=4, help="of the whole; shared out among programs")
    parser.add_argument("--size", type=int, default=1024, help="side of the images, pixels")
    parser.add_argument("--backbone", default="resnet50", help="of ours; torchvision's is resnet50")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=8, help="that are timed, after two")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices of the ceiling")
    parser.add_argument("--csv", type=Path, default=RESULTS / "gpu.csv")
    parser.add_argument("--measure", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=1e6, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    if arguments.measure:
        run_parts(arguments.measure, arguments)
        return
    end = time.monotonic() + 60 * arguments.minutes
    rows = []
    for index, program in enumerate(arguments.programs):
        left = end - time.monotonic()
        for row in run_program(program, arguments, left / (len(arguments.programs) - index)):
            rows.append(row)
        write_csv(arguments.csv, complete(rows), COLUMNS)
        print(f"{program} measured", file=sys.stderr, flush=True)
    lines = [[row.get(name, "") for name in COLUMNS] for row in complete(rows)]
    print(markdown(COLUMNS, lines))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
