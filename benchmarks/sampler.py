"""How busy processes keep processor, main memory and GPUs while they run, seen from outside.

Linux only: elsewhere, and without nvidia-smi, the figures are missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

INTERVAL = 0.2  # seconds between two looks; one costs some milliseconds
GPU_QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")


class Sampler:
    """While the context lasts, looks at processes (by number) with all their descendants, and at the GPUs."""

    def __init__(self, processes: Sequence[int], interval: float = INTERVAL):
        self._processes, self._interval = processes, interval
        self._usage: list[tuple[float, float, float]] = []  # time, processor seconds so far, MB
        self._cores: list[tuple[float, np.ndarray]] = []  # time, (n, 2): busy and all ticks so far
        self._gpus: list[tuple[float, np.ndarray]] = []  # time, (n, 2): percent in use, MB
        self._ended = threading.Event()
        looks = [self._look_at_processes] if Path("/proc/self/stat").exists() else []
        looks += [self._look_at_gpus] if shutil.which("nvidia-smi") else []
        self._threads = [threading.Thread(target=self._repeat, args=(look,), daemon=True) for look in looks]

    def __enter__(self) -> Sampler:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def summary(self, begun: float, ended: float, gpus: int) -> dict[str, float | str]:
        """What was seen; begun, ended: of `time.monotonic`, the part whose load is wanted.

        cpu_load: processors kept busy on average. memory_MB: peak of all the time, summed over the processes
        (what they share is counted for each). core_use: percent of the time in which each core was busy, with
        whatever. gpu_use: percent of the time, mean of the first `gpus` GPUs.
        gpu_MB: peak of all the time on the fullest of them. Figures that there are none of are left out.
        """
        found = {}
        if self._usage:
            times, seconds, memory = np.array(self._usage).T
            # a process that ends while its parent does not wait for it takes its seconds with it
            seconds = np.maximum.accumulate(seconds)
            spent = np.diff(np.interp([begun, ended], times, seconds))[0]
            found |= {"cpu_load": round(spent / (ended - begun), 2), "memory_MB": round(memory.max())}
        if self._cores:
            times = np.array([when for when, _ in self._cores])
            at = [np.abs(times - when).argmin() for when in (begun, ended)]
            busy, ticks = (self._cores[at[1]][1] - self._cores[at[0]][1]).T
            found["core_use"] = " ".join(f"{100 * share:.0f}" for share in busy / np.maximum(ticks, 1))
        if self._gpus and gpus:
            times = np.array([when for when, _ in self._gpus])
            use, memory = np.moveaxis(np.stack([one[:gpus] for _, one in self._gpus]), -1, 0)
            during = (begun <= times) & (times <= ended)
            if during.any() and np.isfinite(use[during]).all():
                found["gpu_use"] = round(float(use[during].mean()))
            if np.isfinite(memory).all():
                found["gpu_MB"] = round(float(memory.max()))
        return found

    def _repeat(self, look) -> None:
        while True:
            look()
            if self._ended.wait(self._interval):
                break
        look()

    def _look_at_processes(self) -> None:
        seconds, memory = usage(self._processes)
        self._usage.append((time.monotonic(), seconds, memory))
        self._cores.append((time.monotonic(), core_ticks()))

    def _look_at_gpus(self) -> None:
        if len(seen := gpu_usage()):
            self._gpus.append((time.monotonic(), seen))


def usage(processes: Sequence[int]) -> tuple[float, float]:
    """Processor seconds that processes and their descendants have used so far, and their memory in MB."""
    known, children = {}, defaultdict(list)
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            # the name, in brackets, may hold anything; see proc_pid_stat(5) for the fields after it
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        known[int(path.name)] = sum(map(int, fields[11:15])), int(fields[21])  # with children waited for
        children[int(fields[1])].append(int(path.name))
    ticks = pages = 0
    waiting = list(processes)
    while waiting:
        number = waiting.pop()
        own_ticks, own_pages = known.pop(number, (0, 0))
        ticks, pages = ticks + own_ticks, pages + own_pages
        waiting += children.pop(number, [])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def core_ticks() -> np.ndarray:
    """(n, 2) int64: ticks that each core has been busy, and all ticks, since the machine was started."""
    lines = Path("/proc/stat").read_text().splitlines()
    cores = [line.split()[1:9] for line in lines if line.startswith("cpu") and not line.startswith("cpu ")]
    ticks = np.array(cores, dtype=np.int64)  # user, nice, system, idle, waiting, ...; see proc_stat(5)
    return np.stack([ticks.sum(axis=1) - ticks[:, 3] - ticks[:, 4], ticks.sum(axis=1)], axis=1)


def gpu_usage() -> np.ndarray:
    """(n, 2) float: percent of the time in which each GPU was busy lately, and MB in use; NaN: not known.

    Those that CUDA_VISIBLE_DEVICES names; none without nvidia-smi or a working driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or not shutil.which("nvidia-smi"):
        return np.empty((0, 2))
    only = [f"--id={visible}"] if visible else []
    answer = subprocess.run(["nvidia-smi", *only, *GPU_QUERY], capture_output=True, text=True)
    if answer.returncode:
        return np.empty((0, 2))
    rows = [[number(cell) for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return np.array(rows).reshape(-1, 2)


def number(text: str) -> float:
    """NaN for what is no number, like [N/A]."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
