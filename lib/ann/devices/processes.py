"""Processes of this machine that work for this one, each with a line to it; none outlives it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

END_SECONDS = 5  # for a process to end that was told to, or that is through


@dataclass(frozen=True)
class Worker:
    """A process, and the line to it."""

    process: BaseProcess
    line: Connection


def start_process(work: Callable, *arguments, name: str) -> Worker:
    """Start `work(line, *arguments)` in a process of its own. It ignores Ctrl-C, which a terminal sends to
    all processes; `work` should call `end_with_parent`.
    """
    context = multiprocessing.get_context("spawn")
    line, their_line = context.Pipe()
    process = context.Process(target=work, args=(their_line, *arguments), name=name, daemon=True)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        process.start()  # inherits what is ignored
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)
    their_line.close()
    return Worker(process, line)


def end_with_parent(clear_up: Callable[[], None] = lambda: None) -> None:
    """End this process when the one that started it is gone, whatever it is doing."""

    def watch():
        wait([multiprocessing.parent_process().sentinel])
        with contextlib.suppress(Exception):
            clear_up()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_processes(workers: Iterable[Worker], patience: float = 0) -> None:
    """Leave none behind. patience: seconds that they get to end by themselves."""
    deadline = time.monotonic() + patience
    for worker in workers:
        worker.process.join(max(0, deadline - time.monotonic()))
    for end in (BaseProcess.terminate, BaseProcess.kill):
        for worker in workers:
            end(worker.process)
        for worker in workers:
            worker.process.join(END_SECONDS)
    for worker in workers:
        worker.line.close()


def core_share(processes: int) -> int:
    """How many of this process' cores each of so many processes gets."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)
