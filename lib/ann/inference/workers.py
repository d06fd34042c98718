"""Tiles on several devices at a time: a function of batches for each of them, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ann.inference.tile_rows import Here, TileBatch, Workers

FINISHING_THREADS = 2  # for each function


class TileWork(Protocol):
    """What workers in other processes, here or on other machines, do with tiles; pickled and sent to them.

    There is one for each kind of network.

    load: the path of a model file, threads of the network (0: as many as it likes) -> a function of a batch
        that gives for each tile what was made of it, small enough to travel, and what runs the network.
        Imports Keras.
    unpack: what was made of a tile, as the pipeline wants it.
    """

    def load(self, path: Path, threads: int) -> tuple[Callable[[TileBatch], Sequence], str]: ...

    def unpack(self, made: object) -> object: ...


@contextmanager
def workers_of(
    functions: Sequence[Callable[[TileBatch], Sequence]], finish: Callable | None = None
) -> Iterator[Workers]:
    """Functions of a batch at work: one on a CPU in this thread, else in threads of their own.

    finish: batch, what the function made of it -> the results; None where these are what it makes.
    """
    from ann.devices.available import gpu_in_use

    if len(functions) > 1 or gpu_in_use():
        with ThreadWorkers(functions, finish) as workers:
            yield workers
        return
    (function,) = functions
    yield Here(function if finish is None else lambda batch: finish(batch, function(batch)))


def load_on_devices(load: Callable[[], Callable], count: int) -> tuple[list[Callable], str]:
    """What `load` makes, once on each of several devices of this machine, and what to call what runs it.

    Imports Keras.

    Raises:
        DeviceError: there are fewer devices.
    """
    import keras

    from ann.devices.available import check_device_count, on_device

    names = check_device_count(count)
    loaded = []
    for number in range(count):
        with on_device(number):
            loaded.append(OnDevice(load(), number))
    return loaded, f"Keras on {keras.backend.backend()}, {count} devices: {', '.join(names)}"


@dataclass(frozen=True)
class OnDevice:
    """A function that runs on its device, whichever thread calls it."""

    function: Callable
    number: int

    def __call__(self, *arguments, **options):
        from ann.devices.available import on_device

        with on_device(self.number):
            return self.function(*arguments, **options)


class ThreadWorkers:
    """Workers with a function each; a batch goes to the one that is free first. Close them at the end.

    Batches for each function are under way beyond the one that it works on, so that none waits while rows are
    merged. A function is always called by the same thread: some libraries keep what they prepared by thread.
    finish: see `workers_of`, beside the functions.
    """

    reads_scene = False

    def __init__(self, functions: Sequence[Callable[[TileBatch], Sequence]], finish: Callable | None = None):
        self.in_flight = (1 + FINISHING_THREADS) * len(functions)
        self._finish = finish
        waiting: queue.SimpleQueue[Callable] = queue.SimpleQueue()
        for function in functions:
            waiting.put(function)
        self._of_thread = threading.local()

        def take_one():
            self._of_thread.function = waiting.get()

        self._working = ThreadPoolExecutor(len(functions), "tiles", initializer=take_one)
        self._finishing = ThreadPoolExecutor(FINISHING_THREADS * len(functions), "finishing")

    def submit(self, batch: TileBatch) -> Future:
        made = self._working.submit(lambda: self._of_thread.function(batch))
        if self._finish is None:
            return made
        return self._finishing.submit(lambda: self._finish(batch, made.result()))

    def close(self) -> None:
        """End the threads; batches that were not begun are given up."""
        for pool in (self._working, self._finishing):
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ThreadWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
