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
import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from measuring import RESULTS, machine, markdown, write_csv
from sampler import Sampler, gpu_usage
from scaling_run import Run

BACKENDS = ("tensorflow", "jax", "torch")
END_SECONDS = 20  # for a process to end by itself after Ctrl-C
LOAD = ("gpu_use", "gpu_MB", "cpu_load", "memory_MB")
COLUMNS = (
    *("backend", "work", "unit", "units", "images_per_device", "images"),
    *("first_s", "median_step_s", "seconds_per_image", "cpu_s_per_image", "epoch_s"),
    *LOAD,
    *("measured_s", "devices", "note"),
)


@dataclass(frozen=True)
class Experiment:
    """plan: the measurements; across: the column along the plot's x axis; shown: that along its y axis.

    ends: after a measurement that failed, larger ones of its kind are left out.
    """

    plan: Callable[[argparse.Namespace, Run], Iterator[Run]]
    across: str
    shown: str = "seconds_per_image"
    ends: bool = False


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
    "units": Experiment(plan_units, "units"),
    "images": Experiment(plan_images, "images_per_device", ends=True),
    "processes": Experiment(plan_processes, "units"),
    "epoch": Experiment(plan_epoch, "units", "epoch_s"),
    "backends": Experiment(plan_backends, "backend"),
}


def counts(most: int) -> list[int]:
    """1, 2, 4 and so on, and the largest number itself."""
    return sorted({2**power for power in range(most.bit_length())} | {most})


def environment(run: Run) -> dict[str, str]:
    """The variables of a run's processes."""
    variables = os.environ | {
        "KERAS_BACKEND": run.backend,
        # else TensorFlow and JAX take most of a GPU's memory, whatever they need
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    on_cpu = run.unit == "threads" or (run.unit == "nodes" and not run.cluster)
    if on_cpu or not len(gpu_usage()):
        variables |= {"CUDA_VISIBLE_DEVICES": "", "MASKRCNN_CPU_DEVICES": str(run.device_count)}
    return variables


class Process:
    """A process that measures a run. `log`: the file that gets what it says beside its results."""

    def __init__(self, run: Run, log: Path):
        command = [sys.executable, Path(__file__).with_name("scaling_run.py"), run.as_json()]
        if run.unit == "threads":
            cores = sorted(os.sched_getaffinity(0))[: run.units]
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command,
                env=environment(run),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if run.unit == "threads" else None,
            )
        self.number, self._log = self._process.pid, log
        self._result: dict | None = None

    def wait(self) -> None:
        """Wait until it is ready, or through."""
        for line in self._process.stdout:
            if line.startswith("RESULT"):
                self._result = json.loads(line.removeprefix("RESULT"))
            if line.startswith(("RESULT", "READY")):
                break

    def begin(self) -> None:
        """Let it go on after READY."""
        with contextlib.suppress(OSError):  # it has ended
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def result(self) -> dict:
        """What it measured; a note why there is nothing."""
        if self._result is None:
            self.wait()
        if self._result is not None:
            return self._result
        code = self._process.wait()
        if code < 0:
            return {"note": f"killed ({signal.Signals(-code).name}): the main memory may not suffice"}
        said = self._log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        return {"note": f"failed: {said[-1]}"}

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        if any(error):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                os.killpg(self.number, signal.SIGINT)  # Ray's nodes would outlive a process that is killed
                self._process.wait(END_SECONDS)
            with contextlib.suppress(OSError):
                os.killpg(self.number, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


def measure(run: Run) -> dict:
    """A row of the table."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(Process(run, Path(run.folder, f"process_{number}.log")))
            for number in range(run.units if run.unit == "processes" else 1)
        ]
        sampler = stack.enter_context(Sampler([process.number for process in processes]))
        if run.work == "detect":
            for process in processes:
                process.wait()
            for process in processes:
                process.begin()
        results = [process.result() for process in processes]
    return make_row(run, results, sampler)


def make_row(run: Run, results: Sequence[dict], sampler: Sampler) -> dict:
    """One row from the results of all processes."""
    row = {"backend": run.backend, "work": run.work, "unit": run.unit, "units": run.units}
    row["images_per_device"] = run.images
    for result in results:
        if "note" in result:
            return row | {"note": result["note"]}
    row |= results[0]
    begun, ended = min(one["begun"] for one in results), max(one["ended"] for one in results)
    row["measured_s"] = ended - begun
    if len(results) > 1:
        row["images"] = sum(one["images"] for one in results)
        row["seconds_per_image"] = row["measured_s"] / row["images"]
        row["first_s"] = max(one["first_s"] for one in results)
    if not run.cluster:  # what happens on its nodes is not seen from here
        row |= sampler.summary(begun, ended, gpus=0 if "CPU" in row["devices"].upper() else run.device_count)
    if "cpu_load" in row:
        row["cpu_s_per_image"] = row["cpu_load"] * row["measured_s"] / row["images"]
    return {name: rounded(row[name]) for name in COLUMNS if name in row}


def rounded(value):
    """Three digits of a number that is not whole, and all digits before the point."""
    if not isinstance(value, float):
        return value
    return round(value, max(0, 2 - math.floor(math.log10(abs(value) or 1))))


def table(rows: Sequence[dict]) -> str:
    """All columns that are filled anywhere."""
    filled = [name for name in COLUMNS if any(row.get(name) not in (None, "") for row in rows)]
    cells = [
        ["" if row.get(name) is None else str(row[name]).replace("|", "/") for name in filled] for row in rows
    ]
    return markdown([name.replace("_", " ") for name in filled], cells)


def draw(path: Path, experiment: Experiment, rows: Sequence[dict]) -> None:
    """Save the plot: a panel for each kind of work, a line for each backend and kind of unit.

    Dotted beside seconds per image, where no GPU works: processor seconds, which depend less on other work.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.get(experiment.shown) is not None]
    works = sorted({row["work"] for row in rows}, reverse=True)
    figure = Figure(figsize=(4.5 * max(1, len(works)), 3.5), layout="constrained")
    for axes, work in zip(figure.subplots(1, max(1, len(works)), squeeze=False)[0], works, strict=False):
        lines: dict[str, list[tuple]] = {}
        for row in rows:
            if row["work"] == work:
                processor = None if row.get("gpu_MB") else row.get("cpu_s_per_image")
                point = row[experiment.across], row[experiment.shown], processor
                lines.setdefault(f"{row['backend']}, {row['unit']}", []).append(point)
        for label, points in lines.items():
            x, y, processor = zip(*points, strict=True)
            if experiment.across == "backend":
                colour = axes.bar(x, y, alpha=0.6).patches[0].get_facecolor()
            else:
                (line,) = axes.plot(x, y, marker="o", label=label)
                colour = line.get_color()
                axes.set_xticks(sorted({x for points in lines.values() for x, *_ in points}))
            if experiment.shown == "seconds_per_image" and None not in processor:
                axes.plot(x, processor, ":", marker="s", color=colour)
        axes.set_title(work)
        axes.set_xlabel(experiment.across.replace("_", " "))
        axes.set_ylabel(experiment.shown.replace("_", " "))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if experiment.across != "backend":
            axes.legend()
    figure.savefig(path, dpi=100)


def carry_out(name: str, arguments: argparse.Namespace, base: Run) -> int:
    """Make an experiment's measurements and print its table; returns how many failed, but for memory."""
    experiment, rows, ended = EXPERIMENTS[name], [], set()
    try:
        for run in experiment.plan(arguments, base):
            kind = run.backend, run.work
            if kind in ended:
                continue
            row = measure(run)
            rows.append(row)
            write_csv(arguments.results / f"{name}.csv", rows, COLUMNS)
            draw(arguments.results / f"{name}.png", experiment, rows)
            if experiment.ends and "note" in row:
                ended.add(kind)
            said = row.get("note") or f"{row[experiment.shown]} {experiment.shown.replace('_', ' ')}"
            where = f"{run.units} {run.unit}, {run.images} images per device"
            print(f"{name}: {run.backend}, {run.work}, {where}: {said}", file=sys.stderr, flush=True)
    finally:
        print(f"\n{name}\n\n{table(rows)}" if rows else f"{name}: nothing was measured", flush=True)
    return sum("memory" not in row.get("note", "memory") for row in rows)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = [name for name in BACKENDS if importlib.util.find_spec(name)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    nodes = [1, 2] if importlib.util.find_spec("ray") else []
    parser.add_argument("experiments", nargs="*", metavar="experiment", help=f"{', '.join(EXPERIMENTS)}; all")
    parser.add_argument("--backends", nargs="+", default=here, choices=BACKENDS, help="those installed")
    parser.add_argument("--work", nargs="+", default=["train", "detect"], choices=["train", "detect"])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=256, help="side of tiles and samples, pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured, after the first")
    parser.add_argument("--devices", type=int, default=len(gpu_usage()) or 2, help="the most of them")
    parser.add_argument("--threads", type=int, default=cores, help="the most CPU threads, a core for each")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="per device")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--nodes", type=int, nargs="*", default=nodes)
    parser.add_argument("--cluster", default="", help="address of the Ray cluster that gives the nodes")
    parser.add_argument(
        "--epoch-images",
        type=int,
        default=0,
        help="images of an epoch, by default enough for --steps on all devices",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of CSV files and plots")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="folder for scenes and models, which with --cluster all nodes must see under the same path",
    )
    parsed = parser.parse_args(arguments)
    for name in parsed.experiments:
        if name not in EXPERIMENTS:
            parser.error(f"expected experiments out of {', '.join(EXPERIMENTS)}, received {name}")
    return parsed


def main(arguments: argparse.Namespace) -> None:
    print(f"{machine()}, {len(gpu_usage())} GPUs; {arguments.backbone}, {arguments.size} x {arguments.size}")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        base = Run(
            work="prepare",
            backend=arguments.backends[0],
            folder=folder,
            backbone=arguments.backbone,
            size=arguments.size,
            steps=arguments.steps,
        )
        with Process(base, Path(folder, "prepare.log")) as process:
            if note := process.result().get("note"):
                sys.exit(f"The network can't be made: {note}")
        failed = sum(carry_out(name, arguments, base) for name in arguments.experiments or EXPERIMENTS)
    if failed:
        sys.exit(f"{failed} measurements failed, see the notes")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended"))  # so that no process is left behind
    try:
        main(parse(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Interrupted: the rows measured so far are kept")
