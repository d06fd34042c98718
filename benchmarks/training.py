#!/usr/bin/env python3
"""How long a training step takes, and how much of it is the bare network.

Prints a Markdown table and saves it as CSV. Each program runs in a process of its own, so that its memory
and its compilation are told apart:
  bare  forward and backward pass of backbone, pyramid and proposal head, the sum of all outputs as the loss,
        no optimiser; on the same backend
  step  the module's own training loop (`run_epochs`): samples cut from scenes and changed in the background,
        targets, regions, heads, losses, clipping, AdamW

Medians of steps after the first; the first one compiles. Processor seconds (of all threads, in brackets)
depend less than elapsed ones on other work on the machine, but mean nothing on a GPU. The scenes are drawn;
each sample shows some 20 objects.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import (
    RESULTS,
    Clock,
    Reporter,
    describe_network,
    draw_scenes,
    machine,
    markdown,
    peak_megabytes,
    software,
    write_csv,
)

PROGRAMS = ("bare", "step")
COLUMNS = (
    "backbone",
    "size",
    "batch",
    "precision",
    "program",
    "median_s",
    "median_cpu_s",
    "first_s",
    "peak_MB",
    "waiting_share",
    "steps",
)


def summarise(clock: Clock) -> dict:
    """Medians of the steps after the first."""
    elapsed, processor = clock.steps()
    return {
        "median_s": round(statistics.median(elapsed[1:]), 3),
        "median_cpu_s": round(statistics.median(processor[1:]), 3),
        "first_s": round(float(elapsed[0]), 1),
        "peak_MB": peak_megabytes(),
        "steps": len(elapsed) - 1,
    }


def measure_bare(arguments) -> dict:
    """Forward and backward pass of the part of the network before the heads, on random pixels."""
    import keras
    from keras import ops

    from maskrcnn.config import MaskRCNNConfig
    from maskrcnn.network.model import build_network
    from maskrcnn.network.stages import set_trainable

    config = MaskRCNNConfig(
        classes=("building", "tank"), backbone=arguments.backbone, image_shape=(arguments.size,) * 2
    )
    network = build_network(config)
    set_trainable(network, "all")
    model = network.features
    images = np.random.default_rng(1).normal(size=(arguments.batch, *config.image_shape, 3))
    images = images.astype(np.float32)

    def loss_of(outputs):
        return sum(ops.sum(ops.cast(output, "float32")) for output in outputs)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False, jit_compile=False)
        def compute(images):
            with tf.GradientTape() as tape:
                loss = loss_of(model(images, training=False))
            return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])

        def step():
            loss, gradients = compute(images)
            return float(loss), gradients[0].numpy()

    elif backend == "jax":
        import jax

        def loss_from(trainable, other, images):
            outputs, _ = model.stateless_call(trainable, other, images, training=False)
            return loss_of(outputs)

        compute = jax.jit(jax.value_and_grad(loss_from))

        def step():
            values = [
                [variable.value for variable in part]
                for part in (model.trainable_variables, model.non_trainable_variables)
            ]
            return jax.block_until_ready(compute(*values, images))

    else:

        def step():
            for variable in model.trainable_variables:
                variable.value.grad = None
            loss = loss_of(model(images, training=False))
            loss.backward()
            return float(loss.detach())

    clock = Clock()
    for _ in range(arguments.steps + 1):
        step()
        clock.tick()
    return summarise(clock)


def measure_step(arguments) -> dict:
    """The real loop over drawn scenes."""
    from ann.data.readers.formats import open_dataset
    from ann.training.image_size import ImageSize
    from ann.training.job import Job
    from ann.training.settings import TrainingSettings
    from drawing import CLASSES
    from maskrcnn.task import TASK

    with tempfile.TemporaryDirectory() as folder:
        draw_scenes(Path(folder, "scenes"), arguments.size)
        dataset = open_dataset(Path(folder, "scenes"), CLASSES)
        size = ImageSize(arguments.size, arguments.size, False)
        config = describe_network(dataset, size, backbone=arguments.backbone)
        settings = TrainingSettings(
            name="benchmark",
            logs=Path(folder),
            epochs=1,
            steps_per_epoch=arguments.steps + 1,
            validation_steps=0,
            images_per_device=arguments.batch,
        )
        return time_steps(Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings))


def time_steps(job) -> dict:
    """Train from scratch as a job says; what its steps take, and how long the loop waits for batches."""
    from ann.training import loop

    waiting = []

    class TimedPrefetcher(loop.Prefetcher):
        """Also keeps how long the loop waited for each batch."""

        def __next__(self):
            start = time.perf_counter()
            batch = super().__next__()
            waiting.append(time.perf_counter() - start)
            return batch

    loop.Prefetcher = TimedPrefetcher
    training_class, arguments = job.task.training_model(job.task.build_network(job.config), job.config)
    feed, clock = job.task.make_feed(job, slice(None)), Clock()
    loop.run_epochs(job.task, training_class(*arguments), job.config, feed, job.settings, Reporter(clock))
    total = clock.times[-1][0] - clock.times[1][0]
    return summarise(clock) | {"waiting_share": round(sum(waiting[1:]) / total, 4)}


def run(program: str, backbone: str, precision: str, arguments) -> dict:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", program, "--backbones", backbone]
    command += ["--precisions", precision]
    for name in ("size", "batch", "steps"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    common = {"backbone": backbone, "precision": precision, "program": program}
    return common | {name: getattr(arguments, name) for name in ("size", "batch")} | measured


def table(rows: list[dict]) -> str:
    """A line for each network."""
    header = ("backbone", "precision", "bare network s", "step s", "step / bare network", "waiting for data")
    lines = []
    for bare, step in zip(rows[::2], rows[1::2], strict=True):
        seconds = [f"{row['median_s']:.2f} ({row['median_cpu_s']:.2f})" for row in (bare, step)]
        ratio, ratio_cpu = (step[key] / bare[key] for key in ("median_s", "median_cpu_s"))
        cells = [step["backbone"], step["precision"], *seconds, f"{ratio:.2f} ({ratio_cpu:.2f})"]
        cells += [f"{step['waiting_share']:.1%}", f"{step['first_s']:.0f}"]
        cells.append(f"{bare['peak_MB']} / {step['peak_MB']}")
        lines.append(cells)
    return markdown((*header, "first step s", "peak MB, bare / step"), lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    from ann.devices.precision import has_bfloat16

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50", "resnet101"])
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "bfloat16"] if has_bfloat16() else ["float32"],
        choices=["float32", "bfloat16"],
        help="bfloat16 by default only where the hardware computes in it",
    )
    parser.add_argument("--size", type=int, default=512, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="steps after the first")
    parser.add_argument("--csv", type=Path, default=RESULTS / "training.csv")
    parser.add_argument("--measure", choices=PROGRAMS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    from ann.devices.precision import has_bfloat16, use_precision

    if arguments.measure:
        (arguments.backbone,), (precision,) = arguments.backbones, arguments.precisions
        with use_precision(precision):
            measured = measure_bare(arguments) if arguments.measure == "bare" else measure_step(arguments)
        print(json.dumps(measured))
        return
    side = arguments.size
    print(f"{machine()}; {software()}; {side} x {side}, batch {arguments.batch}", flush=True)
    if not has_bfloat16():
        print("No hardware for bfloat16 here: float32 only, unless --precisions asks for it.")
    rows = []
    for backbone in arguments.backbones:
        for precision in arguments.precisions:
            rows += [run(program, backbone, precision, arguments) for program in PROGRAMS]
            # after each network, so that an interrupted run keeps what it has
            write_csv(arguments.csv, rows, COLUMNS)
            print(f"{backbone} {precision} measured", file=sys.stderr, flush=True)
    print(f"{machine()}; {software()}, at the end\n")
    print(table(rows))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
