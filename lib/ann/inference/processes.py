"""Tiles on several devices with PyTorch: a process for each, for threads of one process take turns there.

PyTorch's layers are called one by one from Python, which runs one thread at a time; JAX and TensorFlow
compute a whole network in one call.
"""

from __future__ import annotations

import contextlib
import os
import queue
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from ann.devices.processes import Worker, core_share, end_processes, end_with_parent, start_process
from ann.errors import AnnError, DeviceError
from ann.inference.tile_rows import TileBatch, Workers
from ann.inference.workers import TileWork
from ann.packages import configured_backend

BATCHES_PER_PROCESS = 2  # under way: one in work, one that waits for it
VISIBLE = "CUDA_VISIBLE_DEVICES"


def wants_processes(device_count: int) -> bool:
    """Whether so many devices are used by processes of their own."""
    return device_count > 1 and configured_backend() == "torch"


@contextmanager
def device_processes(path: str | Path, work: TileWork, count: int) -> Iterator[tuple[Workers, str]]:
    """A process for each of `count` devices, with the model of a file loaded; and what runs the network.

    Raises:
        AnnError: there are fewer devices, or the model can't be loaded.
    """
    from ann.devices.available import check_device_count

    names = check_device_count(count)
    with start_workers(path, work, count) as (workers, runtime):
        yield workers, f"{runtime}, {count} devices: {', '.join(names)}, a process for each"


@contextmanager
def start_workers(path: str | Path, work: TileWork, count: int) -> Iterator[tuple[Workers, str]]:
    """As `device_processes`, for devices that are known to be there."""
    workers: list[Worker] = []
    try:
        for number in range(count):
            workers.append(start_process(_serve, number, count, Path(path), work, name=f"device-{number}"))
        runtimes = [_answer(worker) for worker in workers]
        with ProcessWorkers(workers, work) as running:
            yield running, runtimes[0]
    finally:
        end_processes(workers)


class ProcessWorkers:
    """Workers with a process each; a batch goes to the one that is free first."""

    reads_scene = False

    def __init__(self, workers: Sequence[Worker], work: TileWork):
        self.in_flight = BATCHES_PER_PROCESS * len(workers)
        self._work = work
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), "devices")  # that wait for the processes

    def submit(self, batch: TileBatch) -> Future:
        """Start on a batch."""
        return self._threads.submit(self._ask, batch)

    def _ask(self, batch: TileBatch) -> list:
        worker = self._free.get()
        try:
            with contextlib.suppress(OSError):  # it died: seen when its answer is wanted
                worker.line.send(batch)
            made = _answer(worker)
        finally:
            self._free.put(worker)
        return [self._work.unpack(one) for one in made]

    def __enter__(self) -> ProcessWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def _answer(worker: Worker):
    """What a process says next; its error is raised here."""
    try:
        answer = worker.line.recv()
    except (EOFError, OSError):
        raise DeviceError(
            f"The process of {worker.process.name} was killed. If nobody did it, the main memory may not "
            "suffice: lower batch_size, tile_size or gpu_count"
        ) from None
    if isinstance(answer, AnnError):
        raise answer
    return answer


def _serve(line: Connection, number: int, count: int, path: Path, work: TileWork) -> None:
    """What a process does: load the model, then answer batch by batch."""
    end_with_parent()
    visible = os.environ.get(VISIBLE)
    listed = visible.split(",") if visible else [str(one) for one in range(count)]
    if visible != "":  # else there are none to be seen
        os.environ[VISIBLE] = listed[number]
    os.environ.setdefault("OMP_NUM_THREADS", str(core_share(count)))
    with contextlib.suppress(EOFError, OSError):  # nobody is there any more
        loaded = _outcome(work.load, path, 0)
        if isinstance(loaded, AnnError):
            line.send(loaded)
            return
        make, runtime = loaded
        line.send(runtime)
        while True:
            line.send(_outcome(lambda batch: list(make(batch)), line.recv()))


def _outcome(function: Callable, *arguments):
    """What a function gives, or the error that it ends with, as one that can be sent."""
    try:
        return function(*arguments)
    except AnnError as error:
        return error
    except Exception:
        return DeviceError(traceback.format_exc())
