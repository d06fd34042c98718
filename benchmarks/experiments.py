"""Measurements in processes of their own, and what becomes of them: a Markdown table, a CSV file and a plot.

`scaling.py` and `studies.py` say what is measured, `scaling_run.py` is one measurement.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from measuring import RESULTS, machine, markdown, write_csv
from sampler import Sampler, gpu_usage
from scaling_run import Run

BACKENDS = ("tensorflow", "jax", "torch")
END_SECONDS = 20  # for a process to end by itself after Ctrl-C
LOAD = ("gpu_use", "gpu_MB", "cpu_load", "core_use", "memory_MB")


@dataclass(frozen=True)
class Experiment:
    """plan: the measurements; across: the column along the plot's x axis; shown: those along y axes.

    columns: of the table. ends: after a measurement that failed, larger ones of its kind are left out.
    """

    plan: Callable[[argparse.Namespace, Run], Iterator[Run]]
    across: str
    columns: Sequence[str]
    shown: Sequence[str] = ("seconds_per_image",)
    ends: bool = False


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
    if row.get("seconds_per_image"):
        row["images_per_s"] = 1 / row["seconds_per_image"]
    if "cpu_load" in row:
        row["cpu_s_per_image"] = row["cpu_load"] * row["measured_s"] / row["images"]
    return {name: rounded(value) for name, value in row.items()}


def rounded(value):
    """Three digits of a number that is not whole, and all digits before the point."""
    if not isinstance(value, float):
        return value
    return round(value, max(0, 2 - math.floor(math.log10(abs(value) or 1))))


def table(rows: Sequence[dict], columns: Sequence[str]) -> str:
    """Those of the columns that are filled anywhere."""
    filled = [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]
    cells = [
        ["" if row.get(name) is None else str(row[name]).replace("|", "/") for name in filled] for row in rows
    ]
    return markdown([name.replace("_", " ") for name in filled], cells)


def draw(path: Path, experiment: Experiment, rows: Sequence[dict]) -> None:
    """Save the plot: a panel for each kind of work and value, a line for each backend and kind of unit.

    Dotted beside seconds per image, where no GPU works: processor seconds, which depend less on other work.
    """
    from matplotlib.figure import Figure

    panels = [
        (work, shown)
        for work in sorted({row["work"] for row in rows}, reverse=True)
        for shown in experiment.shown
        if any(row.get(shown) is not None for row in rows)
    ]
    count = max(1, len(panels))
    figure = Figure(figsize=(4.5 * count, 3.5), layout="constrained")
    for axes, (work, shown) in zip(figure.subplots(1, count, squeeze=False)[0], panels, strict=False):
        lines: dict[str, list[tuple]] = {}
        for row in rows:
            if row["work"] == work and row.get(shown) is not None:
                processor = None if row.get("gpu_MB") else row.get("cpu_s_per_image")
                point = row[experiment.across], row[shown], processor
                lines.setdefault(f"{row['backend']}, {row['unit']}", []).append(point)
        for label, points in lines.items():
            x, y, processor = zip(*points, strict=True)
            if experiment.across == "backend":
                colour = axes.bar(x, y, alpha=0.6).patches[0].get_facecolor()
            else:
                (line,) = axes.plot(x, y, marker="o", label=label)
                colour = line.get_color()
                axes.set_xticks(sorted({x for points in lines.values() for x, *_ in points}))
            if shown == "seconds_per_image" and None not in processor:
                axes.plot(x, processor, ":", marker="s", color=colour)
        axes.set_title(work)
        axes.set_xlabel(experiment.across.replace("_", " "))
        axes.set_ylabel(shown.replace("_", " "))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if experiment.across != "backend":
            axes.legend()
    figure.savefig(path, dpi=100)


def carry_out(name: str, experiment: Experiment, arguments: argparse.Namespace, base: Run) -> int:
    """Make an experiment's measurements and print its table; returns how many failed, but for memory."""
    rows, ended = [], set()
    try:
        for run in experiment.plan(arguments, base):
            kind = run.backend, run.work
            if kind in ended:
                continue
            row = measure(run)
            rows.append(row)
            kept = [{key: row[key] for key in experiment.columns if key in row} for row in rows]
            write_csv(arguments.results / f"{name}.csv", kept, experiment.columns)
            draw(arguments.results / f"{name}.png", experiment, rows)
            if experiment.ends and "note" in row:
                ended.add(kind)
            shown = experiment.shown[0]
            said = row.get("note") or f"{row.get(shown)} {shown.replace('_', ' ')}"
            where = f"{run.units} {run.unit}, {run.images} images per device"
            print(f"{name}: {run.backend}, {run.work}, {where}: {said}", file=sys.stderr, flush=True)
    finally:
        shown = f"\n{name}\n\n{table(rows, experiment.columns)}" if rows else f"{name}: nothing was measured"
        print(shown, flush=True)
    return sum("memory" not in row.get("note", "memory") for row in rows)


def carry_out_all(experiments: Mapping[str, Experiment], arguments: argparse.Namespace, base: Run) -> None:
    """Prepare data and weights in a temporary folder, make the experiments, and end the program if one fails.

    base: what all measurements share. arguments: `results`, `scratch`, and what the plans want.
    """
    print(f"{machine()}, {len(gpu_usage())} GPUs; {base.backbone}, {base.size} x {base.size}", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        base = replace(base, folder=folder)
        with Process(base, Path(folder, "prepare.log")) as process:
            if note := process.result().get("note"):
                sys.exit(f"The network can't be made: {note}")
        failed = sum(carry_out(name, one, arguments, base) for name, one in experiments.items())
    if failed:
        sys.exit(f"{failed} measurements failed, see the notes")


def run_program(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a program that measures; no process is left behind when it is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended"))
    try:
        main(arguments)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the rows measured so far are kept")


def add_common_arguments(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    """Arguments of all programs that measure. backends: by default."""
    parser.add_argument("--backends", nargs="+", default=backends, choices=BACKENDS)
    parser.add_argument("--cluster", default="", help="address of the Ray cluster that gives the nodes")
    parser.add_argument("--devices", type=int, default=len(gpu_usage()) or 2, help="the most of them")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of CSV files and plots")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="folder for scenes and models, which with --cluster all nodes must see under the same path",
    )


def installed_backends() -> list[str]:
    """Those of `BACKENDS` that are installed."""
    return [name for name in BACKENDS if importlib.util.find_spec(name)]
