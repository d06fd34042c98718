#!/usr/bin/env python3
"""What the modules add to a U-Net: a training step, and the prediction of a scene.

Prints a Markdown table and saves it as CSV.
  train    the loop of i.ann.unet.train (samples cut from scenes and changed in the background) beside the
           same network written in plain Keras, trained on arrays in memory; same losses and optimiser
  predict  a scene in tiles (read, scaled, predicted, put together) beside the plain call of the network on
           as many images; tiles share what the network sees around a cell, so cells are computed twice

Programs of the training run in processes of their own, in turn; those of the prediction take turns in one.
Medians after the first call, which compiles. Processor seconds (of all threads, in brackets) depend less than
elapsed ones on other work on the machine, but mean nothing on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from measuring import RESULTS, Clock, draw_pairs, machine, markdown, software, write_csv
from scaling_run import Run, make_job, prepare
from training import summarise, time_steps

PROGRAMS = ("plain", "module")
COLUMNS = (
    *("work", "program", "runtime", "side", "batch", "median_s", "median_cpu_s", "first_s"),
    *("peak_MB", "waiting_share", "computed_share", "steps"),
)


def plain_network(bands: int = 3):
    """`unet_vgg` as one would write it in Keras, for one class."""
    from keras import Input, Model, layers

    def normalised(x):
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    def block(x, filters, count):
        for _ in range(count):
            x = normalised(layers.Conv2D(filters, 3, padding="same")(x))
        return x

    images = x = Input((None, None, bands))
    levels = []
    for filters, count in ((64, 2), (128, 2), (256, 3)):
        x = block(x, filters, count)
        levels.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 512, 3)
    for filters, level in zip((256, 128, 64), reversed(levels), strict=True):
        x = normalised(layers.Conv2DTranspose(filters, 2, strides=2)(x))
        x = block(layers.Concatenate()([level, x]), filters, 2)
    return Model(images, layers.Conv2D(1, 3, padding="same", dtype="float32")(x))


def train_plain(arguments) -> dict:
    """Steps of the plain network on arrays in memory."""
    import keras
    from keras import ops

    def loss(labels, logits):
        overlap = keras.losses.dice(labels, ops.sigmoid(logits), axis=(1, 2))
        return ops.mean(keras.losses.binary_crossentropy(labels, logits, from_logits=True)) + ops.mean(
            overlap
        )

    model = plain_network()
    model.compile(
        optimizer=keras.optimizers.AdamW(5e-4, weight_decay=1e-4, global_clipnorm=5.0),
        loss=loss,
        # as the module does: with XLA a step takes longer on CPUs
        jit_compile=keras.backend.backend() == "jax",
    )
    random = np.random.default_rng(1)
    shape = (arguments.batch, arguments.side, arguments.side)
    images = random.normal(size=(*shape, 3)).astype(np.float32)
    labels = random.integers(0, 2, (*shape, 1)).astype(np.float32)
    clock = Clock()
    for _ in range(arguments.steps + 1):
        float(model.train_on_batch(images, labels))
        clock.tick()
    return summarise(clock)


def train_module(arguments) -> dict:
    """The module's own loop on drawn scenes."""
    with tempfile.TemporaryDirectory() as folder:
        draw_pairs(Path(folder, "pairs"), arguments.side)
        run = Run(
            work="train",
            backend="",
            folder=folder,
            dataset=str(Path(folder, "pairs")),
            classes=("object",),
            network="unet",
            backbone="unet_vgg",
            size=arguments.side,
            images=arguments.batch,
            steps=arguments.steps,
        )
        prepare(run)
        return time_steps(make_job(run, 1))


def predict(arguments) -> list[dict]:
    """Prediction of a scene of four tiles by the pipeline, and four plain calls."""

    from ann.inference.cells import CellSettings, Part, cell_worker, predict_cells
    from ann.inference.field_of_view import reach
    from ann.inference.openvino import openvino_version
    from ann.inference.scene import ArrayScene
    from ann.inference.tile_rows import Here, NetworkInput
    from unet.config import UNetConfig
    from unet.network.model import build_network
    from unet.prediction import fastest_network

    tile = arguments.tile
    config = UNetConfig(
        classes=("object",), backbone="unet_vgg", band_mean=(127.5,) * 3, band_scale=(73.6,) * 3
    )
    network = build_network(config)
    stride = config.size_multiple
    given = NetworkInput(tile_shape=(tile, tile), band_mean=config.band_mean, band_scale=config.band_scale)
    settings = CellSettings(given=given, reach=reach(network, stride), stride=stride)
    core = tile - 2 * settings.halo
    scene = ArrayScene(np.random.default_rng(1).integers(0, 255, (2 * core, 2 * core, 3), dtype=np.uint8))
    part = Part(row=0, column=0, height=scene.height, width=scene.width)
    images = np.random.default_rng(2).normal(size=(1, tile, tile, 3)).astype(np.float32)
    rows = []
    for runtime in ("keras", "openvino") if openvino_version() else ("keras",):
        run_network, _ = fastest_network(network, keras_only=runtime == "keras")
        workers = Here(cell_worker(run_network, settings))
        common = {"work": "predict", "runtime": runtime, "side": tile, "batch": 1}
        common |= {"computed_share": round((tile / core) ** 2, 2)}
        programs = {
            "plain": partial(lambda call: [call(images) for _ in range(4)], run_network),
            "module": partial(lambda workers: list(predict_cells(scene, part, workers, settings)), workers),
        }
        rows += [common | row for row in take_turns(programs, arguments.calls)]
    return rows


def take_turns(programs: Mapping[str, Callable[[], object]], calls: int) -> list[dict]:
    """Medians of calls after the first one, for each program."""
    spent = {name: [] for name in programs}
    for _ in range(calls + 1):
        for name, program in programs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            program()
            spent[name].append((time.perf_counter() - start, time.process_time() - start_cpu))
    rows = []
    for name, seconds in spent.items():
        median, median_cpu = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
        row = {"program": name, "median_s": round(median, 3), "median_cpu_s": round(median_cpu, 3)}
        rows.append(row | {"first_s": round(seconds[0][0], 1), "steps": calls})
    return rows


def table(rows: list[dict]) -> str:
    """A line for each pair of programs."""
    lines = []
    for plain, module in zip(rows[::2], rows[1::2], strict=True):
        seconds = [f"{row['median_s']:.2f} ({row['median_cpu_s']:.2f})" for row in (plain, module)]
        ratio, ratio_cpu = (module[key] / plain[key] for key in ("median_s", "median_cpu_s"))
        what = [module["work"], module["runtime"], module["side"], module["batch"]]
        also = [module.get("waiting_share", ""), module.get("computed_share", "")]
        lines.append([*what, *seconds, f"{ratio:.2f} ({ratio_cpu:.2f})", *also])
    header = ("work", "runtime", "side", "batch", "plain s", "module s", "module / plain")
    return markdown((*header, "waiting for data", "cells computed / wanted"), lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=256, help="of the images of a training step, pixels")
    parser.add_argument("--batch", type=int, default=4, help="images of a training step")
    parser.add_argument("--steps", type=int, default=8, help="of training after the first")
    parser.add_argument("--tile", type=int, default=512, help="side of tiles to predict in, pixels")
    parser.add_argument("--calls", type=int, default=3, help="predictions after the first")
    parser.add_argument("--csv", type=Path, default=RESULTS / "overhead.csv")
    parser.add_argument("--measure", choices=PROGRAMS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    if arguments.measure:
        measured = train_plain(arguments) if arguments.measure == "plain" else train_module(arguments)
        print(json.dumps(measured))
        return
    print(f"{machine()}; {software()}; unet_vgg", flush=True)
    rows = []
    for program in PROGRAMS:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", program]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        what = {"work": "train", "program": program, "runtime": "keras"}
        what |= {"side": arguments.side, "batch": arguments.batch}
        rows.append(what | json.loads(done.stdout.splitlines()[-1]))
        write_csv(arguments.csv, rows, COLUMNS)
    rows += predict(arguments)
    write_csv(arguments.csv, rows, COLUMNS)
    print(f"{machine()}, at the end\n\n{table(rows)}")


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
