#!/usr/bin/env python3
"""Training and detection on one GPU: this library on JAX and PyTorch, and torchvision's Mask R-CNN beside it.

Needs no network and no data: images, boxes and masks are drawn at random, the same for all programs. Each
program runs in a process of its own, and each of its parts is left out with a note if it fails or the time
is over. Prints a Markdown table and saves it as CSV, after each part.

  ceiling    the card's matrix rate in bfloat16: a product of large random matrices
  parity     outputs before the heads on the card against those on the CPU: the norm of the difference over
             that of the CPU's, in float32 with and without TF32
  train      a training step as the module makes it: batch from main memory (ahead of the step), targets,
             losses, clipping, AdamW, all layers trained but batch normalisation, masks as large as the images
  detect     detection in tiles from main memory to boxes, scores and masks in main memory
  scene      the same with all around it: tiles of a scene in memory, masks drawn and merged beside the
             network

Times are of some steps in a row, for which is waited at their end only. torchvision's network trains with its
own heads and losses, fixed batch normalisation, AdamW and clipping too, under autocast; its detection leaves
out that masks are put into the image, as ours does here.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from measuring import RESULTS, markdown, write_csv
from torchvision_network import build_torchvision

PROGRAMS = ("jax", "torch", "torchvision")
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
TORCH = ("torch", "torchvision")
SHARES = {"jax": 0.5, "torch": 0.65}  # of the time that is left; the last program gets all of it
WARM_UP = 4  # calls before the timed ones: PyTorch records its work in the third


def draw_batch(config, batch: int, seed: int) -> dict[str, np.ndarray]:
    """A training batch of random pixels and rectangular objects, as `ann.data.samples.batches` makes them."""
    from maskrcnn.network.training import anchor_count

    random = np.random.default_rng(seed)
    side, places = config.image_shape[0], config.max_instances
    boxes = np.zeros((batch, places, 4), np.float32)
    masks = np.zeros((batch, places, side, side // 8), np.uint8)
    class_ids = np.zeros((batch, places), np.int32)
    low = random.integers(0, side * 3 // 4, (batch, OBJECTS, 2))
    high = low + random.integers(max(side // 32, 2), side // 4, (batch, OBJECTS, 2))
    boxes[:, :OBJECTS] = np.concatenate([low, high], axis=-1)
    class_ids[:, :OBJECTS] = random.integers(1, config.class_count, (batch, OBJECTS))
    for image in range(batch):
        for place in range(OBJECTS):
            (y1, x1), (y2, x2) = low[image, place], high[image, place]
            row = np.zeros(side, np.uint8)
            row[x1:x2] = 1
            masks[image, place, y1:y2] = np.packbits(row)
    return {
        "images": random.normal(size=(batch, side, side, config.bands)).astype(np.float32),
        "class_ids": class_ids,
        "boxes": boxes,
        "masks": masks,
        "anchor_noise": random.random((batch, anchor_count(config)), dtype=np.float32),
        "roi_noise": random.random((batch, config.roi_candidates), dtype=np.float32),
    }


def time_calls(call: Callable[[int], object], repeats: int, wait: Callable[[object], None]) -> dict:
    """Seconds of `call(number)`: of the first, and of one of `repeats` in a row, the median of three rows.

    wait: for what a call gave.
    """
    start = time.perf_counter()
    wait(call(0))
    first = time.perf_counter() - start
    for number in range(1, WARM_UP):
        wait(call(number))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for number in range(repeats):
            result = call(number)
        wait(result)
        seconds.append((time.perf_counter() - start) / repeats)
    return {"median_s": statistics.median(seconds), "first_s": round(first, 2)}


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

    def wait(self, result) -> None:
        """Until all that was started is done, `result` with it."""
        if not self.torch:
            import jax

            jax.block_until_ready(result)
        elif self.gpu:
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
        max_detections=arguments.detections,
        rois_per_image=min(arguments.proposals, 64),
        proposals_training=2 * arguments.proposals,
        proposals_detection=arguments.proposals,
    )


def measure_ceiling(arguments, card: Card) -> dict:
    """A product of two square matrices in bfloat16."""
    import torch

    side = arguments.matrix
    device = "cuda" if card.gpu else "cpu"
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    timed = time_calls(lambda number: one @ other, 20, card.wait)
    return timed | {"TFLOP_per_s": round(2 * side**3 / timed["median_s"] / 1e12, 3)}


def measure_parity(arguments, card: Card) -> dict:
    """The largest relative difference of an output between card and CPU, in the precision that is set."""
    import keras

    from maskrcnn.network.model import build_network

    def outputs(network):
        return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(network(images))]

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
    errors = [
        float(np.linalg.norm(one - other) / np.linalg.norm(other))
        for one, other in zip(found, expected, strict=True)
    ]
    return {"error": f"{max(errors):.2e}"}


def measure_training(arguments, card: Card, batch: int) -> dict:
    """Steps of this library's network."""
    from ann.data.samples.prefetch import Prefetcher
    from ann.devices.upload import uploader
    from ann.training.loop import make_optimizer
    from ann.training.settings import TrainingSettings
    from maskrcnn.network.model import build_network
    from maskrcnn.network.stages import set_trainable
    from maskrcnn.network.training import TrainingNetwork

    config = describe(arguments)
    model = TrainingNetwork(build_network(config))
    set_trainable(model.network, "all", False)
    optimizer = make_optimizer(TrainingSettings(name="", logs=Path()))
    model.compile(optimizer=optimizer, jit_compile=not card.torch)
    optimizer.build(model.trainable_variables)
    drawn, upload = [draw_batch(config, batch, seed) for seed in range(2)], uploader()
    with Prefetcher(lambda number: upload(drawn[number % 2]), workers=2) as batches:
        timed = time_calls(lambda number: model.take_step(next(batches)), arguments.steps, card.wait)
        if card.torch:
            steps, fed = model._steps, next(batches)
            if card.gpu:
                timed["note"] = "one graph" if steps._train.recorded else "kernel by kernel"
            fed = {name: torch_tensor(values, card) for name, values in fed.items()}
            timed["operations"] = count_operations(lambda: steps._train_on(fed))
    return timed


def torch_tensor(values, card: Card):
    """An array or tensor as a tensor of the card."""
    import torch

    return torch.as_tensor(values, device="cuda" if card.gpu else "cpu")


def measure_detection(arguments, card: Card, batch: int) -> dict:
    """Tiles of this library's network."""
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.model import build_network

    config = describe(arguments)
    detector = Detector(build_network(config))
    shape = (batch, *config.image_shape, config.bands)
    images = [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in range(2)]
    return time_calls(lambda number: detector(images[number % 2], confidence=0.0), arguments.steps, no_wait)


def no_wait(result) -> None:
    """For results that are in main memory."""


def measure_scene(arguments, card: Card, batch: int) -> dict:
    """Tiles of a scene, from its pixels to finished rows."""
    from ann.inference.scene import ArrayScene
    from maskrcnn.detector import detection_workers
    from maskrcnn.instances.pipeline import DetectionSettings, find_by_workers
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.model import build_network

    config = describe(arguments)
    settings = DetectionSettings.for_model(config, batch_size=batch, confidence=0.99)
    detector = Detector(build_network(config))
    columns = max(4, batch)
    pixels = np.random.default_rng(1).normal(size=(arguments.size, columns * arguments.size, config.bands))
    pixels = pixels.astype(np.float32)
    scene = ArrayScene(np.tile(pixels, (arguments.steps, 1, 1)))
    with detection_workers([detector], settings) as workers:
        for _ in find_by_workers(ArrayScene(np.tile(pixels, (WARM_UP, 1, 1))), workers, settings):
            pass
        start, told = time.perf_counter(), []
        for _ in find_by_workers(scene, workers, settings, told.append):
            pass
    return {"median_s": (time.perf_counter() - start) / told[-1].tiles_total * batch}


def torchvision_network(arguments, card: Card):
    """torchvision's network with the same anchors and counts of regions."""
    config = describe(arguments)
    model = build_torchvision(config, lowest_score=0.0, detections=arguments.detections)
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
            masks = torch.from_numpy(np.unpackbits(drawn["masks"][index][kept], axis=-1))
            target = {"boxes": boxes, "labels": labels, "masks": masks}
            targets.append({name: value.to(device) for name, value in target.items()})
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return loss.detach()

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

    return time_calls(detect, arguments.steps, no_wait)


def parts(program: str, arguments) -> Iterator[tuple[dict, Callable]]:
    """What a program measures, the most important first: what it is called, and its function."""
    if program == "torch":
        yield {"part": "ceiling", "precision": "bfloat16"}, measure_ceiling
    train, detect = measure_training, measure_detection
    if program == "torchvision":
        train, detect = measure_torchvision_training, measure_torchvision_detection

    def part(name, measure, batch, precision="bfloat16"):
        called = {"part": name, "precision": precision, "batch": batch}
        return called, lambda arguments, card: measure(arguments, card, batch)

    *others, largest = sorted(arguments.batches)
    smallest, *others = others or [largest]
    usual = [*others, smallest, largest]
    for batch in dict.fromkeys(usual[:2]):
        yield part("train", train, batch)
    for batch in dict.fromkeys((largest, smallest)):
        yield part("detect", detect, batch)
    if program == "torch":
        yield part("scene", measure_scene, usual[0])
    for batch in dict.fromkeys(usual[2:]):
        yield part("train", train, batch)
    for batch in dict.fromkeys((largest, smallest)):
        yield part("detect", detect, batch, "float32")
    if program != "torchvision":
        for precision, note in (("tf32", "TF32"), ("float32", "exact")):
            yield {"part": "parity", "precision": precision, "note": note}, measure_parity


@contextmanager
def compiled_layers() -> Iterator[None]:
    """Inside of the context PyTorch compiles the functional parts of networks, each for its shapes."""
    import torch

    from ann.pytorch import layers

    torch._dynamo.config.recompile_limit = 64  # of one function, which runs all the parts
    run, layers.run = layers.run, torch.compile(layers.run, dynamic=False)
    try:
        yield
    finally:
        layers.run = run


def run_parts(program: str, arguments) -> None:
    """Measure in this process; a line of JSON for each part, when it is done."""
    end = time.monotonic() + arguments.seconds
    if program != "torchvision":
        from ann.packages import import_keras

        import_keras()
        from ann.devices.precision import use_precision
        from ann.training.seeds import seed_everything
    card = Card(program)
    for called, measure in parts(program, arguments):
        row = {"program": program, "card": card.name} | called
        arguments.precision = called["precision"]
        if time.monotonic() > end:
            row["note"] = "left out: the time is over"
        else:
            try:
                with ExitStack() as stack:
                    if program != "torchvision":
                        stack.enter_context(use_precision(arguments.precision))
                        seed_everything(1)
                    if arguments.compile and (program, called["part"]) == ("torch", "train"):
                        stack.enter_context(compiled_layers())
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
    for name in ("size", "steps", "backbone", "matrix", "proposals", "detections"):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--batches", *map(str, arguments.batches)]
    command += ["--compile"] if arguments.compile else []
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
    parser.add_argument("--minutes", type=float, default=6.5, help="of the whole; shared out among programs")
    parser.add_argument("--size", type=int, default=1024, help="side of the images, pixels")
    parser.add_argument("--backbone", default="resnet50", help="of ours; torchvision's is resnet50")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=8, help="that are timed, after two")
    parser.add_argument("--proposals", type=int, default=1000, help="of an image; twice as many in training")
    parser.add_argument("--detections", type=int, default=100, help="that survive in a tile, at most")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices of the ceiling")
    parser.add_argument("--compile", action="store_true", help="PyTorch's layers in training")
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
    for program in arguments.programs:
        share = 1.0 if program == arguments.programs[-1] else SHARES.get(program, 0.5)
        rows += run_program(program, arguments, share * (end - time.monotonic()))
        write_csv(arguments.csv, complete(rows), COLUMNS)
        print(f"{program} measured", file=sys.stderr, flush=True)
    lines = [[row.get(name, "") for name in COLUMNS] for row in complete(rows)]
    print(markdown(COLUMNS, lines))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
