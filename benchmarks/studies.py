#!/usr/bin/env python3
"""Two studies of the U-Net, each a Markdown table, a CSV file and a plot; see docs/studies.md.

  frameworks  the same network, weights, images and steps on TensorFlow, PyTorch and JAX, on 1, 2, ...
              devices: minutes, seconds, images per second, Dice, IoU, memory
  scaling     1, 2, 4, 8 workers of a Ray cluster that share steps of a constant number of images: seconds
              per epoch, processor use per core, and the scores that each reaches in the same time

Scores are of whole images that had no part in the training: a quarter of the dataset, which is drawn where
none is given. Devices are GPUs; where nvidia-smi finds none, parts of the CPU, which share its cores: that
shows that the work is done, not that it gets faster. Workers are the GPUs of this machine, or nodes: those of
--cluster, else Ray nodes on this machine, which compute on the CPU.
"""

from __future__ import annotations

import argparse
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
from sampler import gpu_usage
from scaling_run import Run

SCENES = 16  # that are drawn
COMMON = ("backend", "unit", "units", "images_per_device", "steps")
FRAMEWORKS = (
    *COMMON,
    *("minutes", "first_s", "step_s", "images_per_s", "cpu_s_per_image", "IoU", "Dice"),
    *LOAD,
    *("devices", "note"),
)
SCALING = (*COMMON, "epoch_s", "images_per_s", "cpu_s_per_image", "IoU", "Dice", *LOAD, "devices", "note")


def plan_frameworks(arguments, base: Run) -> Iterator[Run]:
    base = replace(base, work="train", batch=arguments.images, steps=arguments.steps)
    for backend in arguments.backends:
        for count in counts(arguments.devices):
            yield replace(base, backend=backend, units=count)


def plan_scaling(arguments, base: Run) -> Iterator[Run]:
    base = replace(base, work="train", batch=arguments.images, minutes=arguments.minutes)
    base = replace(base, epoch_images=arguments.epoch_images, cluster=arguments.cluster)
    gpus = 0 if arguments.cluster else len(gpu_usage())
    for backend in arguments.backends:
        for count in arguments.workers:
            if not gpus or count <= gpus:
                yield replace(base, backend=backend, unit="gpus" if gpus else "nodes", units=count)


STUDIES = {
    "frameworks": Experiment(
        plan_frameworks, "units", FRAMEWORKS, shown=("images_per_s", "minutes", "IoU", "memory_MB")
    ),
    "scaling": Experiment(plan_scaling, "units", SCALING, shown=("epoch_s", "IoU", "cpu_load")),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    study = parser.add_subparsers(dest="study", required=True)
    here = installed_backends()
    on_nodes = ["torch" if "torch" in here else "jax"]  # Keras can't with TensorFlow
    for name, backends in (("frameworks", here), ("scaling", on_nodes)):
        of_study = study.add_parser(name)
        add_common_arguments(of_study, backends)
        of_study.add_argument("--architecture", default="unet_resnet18")
        of_study.add_argument("--loss", default="both", help="cross_entropy, dice or both")
        of_study.add_argument("--size", type=int, default=64, help="side of samples, pixels")
        of_study.add_argument("--images", type=int, default=16, help="per step, of all devices together")
        of_study.add_argument("--dataset", default="", help="directory of labelled images, else drawn ones")
        of_study.add_argument("--classes", nargs="+", default=[], help="of the dataset")
    study.choices["frameworks"].add_argument("--steps", type=int, default=20, help="after the first")
    of_scaling = study.choices["scaling"]
    of_scaling.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    of_scaling.add_argument("--epoch-images", type=int, default=128, help="images of an epoch")
    of_scaling.add_argument("--minutes", type=float, default=0.5, help="of the training that is scored")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    base = Run(
        work="prepare",
        backend=arguments.backends[0],
        backbone=arguments.architecture,
        network="unet",
        loss=arguments.loss,
        size=arguments.size,
        dataset=arguments.dataset,
        classes=arguments.classes,
        scenes=SCENES,
        scored=True,
    )
    carry_out_all({arguments.study: STUDIES[arguments.study]}, arguments, base)


if __name__ == "__main__":
    run_program(main, parse(sys.argv[1:]))
