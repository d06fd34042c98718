#!/usr/bin/env python3
"""How training and detection scale: five experiments, each a Markdown table, a CSV file and a plot.

  units      seconds per image by CPU threads and by devices that share the work
  images     by images per device and step, until the memory runs out
  processes  by detections that run side by side on one device
  epoch      training time per epoch by devices of one machine, and by nodes of a Ray cluster
  backends   TensorFlow, JAX and PyTorch with the same network and weights

Devices are GPUs; where nvidia-smi finds none, parts of the CPU, which share its cores: that shows that the
work is done, not that it gets faster. Without --cluster nodes are Ray nodes on this machine, which compute on
the CPU. Each measurement is made in a process of its own, from the same random weights, on drawn scenes;
seconds don't count the first step, which compiles. Rows are saved one by one, so an interrupted run keeps
what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from experiments import (
    LOAD,
    Experiment,
    add_common_arguments,
    carry_out_all,
    counts,
    installed_backends,
    run_program,
)
from scaling_run import Run

COLUMNS = (
    *("backend", "work", "unit", "units", "images_per_device", "images"),
    *("first_s", "step_s", "seconds_per_image", "cpu_s_per_image", "epoch_s"),
    *LOAD,
    *("measured_s", "devices", "note"),
)


def plan_units(arguments, base: Run) -> Iterator[Run]:
    units = [("devices", count) for count in counts(arguments.devices)]
    if hasattr(os, "sched_setaffinity"):
        units = [("threads", count) for count in counts(arguments.threads)] + units
    for backend in arguments.backends:
        for work in arguments.work:
            for unit, count in units:
                yield replace(base, backend=backend, work=work, unit=unit, units=count)


def plan_images(arguments, base: Run) -> Iterator[Run]:
    for backend in arguments.backends:
        for work in arguments.work:
            for images in arguments.images:
                yield replace(base, backend=backend, work=work, images=images)


def plan_processes(arguments, base: Run) -> Iterator[Run]:
    for backend in arguments.backends:
        for count in arguments.processes:
            yield replace(base, backend=backend, work="detect", unit="processes", units=count)


def plan_epoch(arguments, base: Run) -> Iterator[Run]:
    images = arguments.epoch_images or arguments.steps * base.images * arguments.devices
    base = replace(base, work="train", epoch_images=images)
    for backend in arguments.backends:
        for count in counts(arguments.devices):
            yield replace(base, backend=backend, units=count)
    for backend in arguments.backends:
        # Keras can't train with TensorFlow on several machines
        for count in arguments.nodes if backend != "tensorflow" else ():
            yield replace(base, backend=backend, unit="nodes", units=count, cluster=arguments.cluster)


def plan_backends(arguments, base: Run) -> Iterator[Run]:
    for work in arguments.work:
        for backend in arguments.backends:
            yield replace(base, backend=backend, work=work)


EXPERIMENTS = {
    "units": Experiment(plan_units, "units", COLUMNS),
    "images": Experiment(plan_images, "images_per_device", COLUMNS, ends=True),
    "processes": Experiment(plan_processes, "units", COLUMNS),
    "epoch": Experiment(plan_epoch, "units", COLUMNS, shown=("epoch_s",)),
    "backends": Experiment(plan_backends, "backend", COLUMNS),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    nodes = [1, 2] if importlib.util.find_spec("ray") else []
    parser.add_argument("experiments", nargs="*", metavar="experiment", help=f"{', '.join(EXPERIMENTS)}; all")
    add_common_arguments(parser, installed_backends())
    parser.add_argument("--work", nargs="+", default=["train", "detect"], choices=["train", "detect"])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=256, help="side of tiles and samples, pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured, after the first")
    parser.add_argument("--threads", type=int, default=cores, help="the most CPU threads, a core for each")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="per device")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--nodes", type=int, nargs="*", default=nodes)
    parser.add_argument(
        "--epoch-images",
        type=int,
        default=0,
        help="images of an epoch, by default enough for --steps on all devices",
    )
    parsed = parser.parse_args(arguments)
    for name in parsed.experiments:
        if name not in EXPERIMENTS:
            parser.error(f"expected experiments out of {', '.join(EXPERIMENTS)}, received {name}")
    return parsed


def main(arguments: argparse.Namespace) -> None:
    chosen = {name: EXPERIMENTS[name] for name in arguments.experiments or EXPERIMENTS}
    base = Run(
        work="prepare",
        backend=arguments.backends[0],
        backbone=arguments.backbone,
        size=arguments.size,
        steps=arguments.steps,
    )
    carry_out_all(chosen, arguments, base)


if __name__ == "__main__":
    run_program(main, parse(sys.argv[1:]))
