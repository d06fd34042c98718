"""Tiles on several devices at a time: a function of batches for each of them, in a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from ann.inference.tile_rows import Here, TileBatch, Workers


@contextmanager
def workers_of(functions: Sequence[Callable[[TileBatch], Sequence]]) -> Iterator[Workers]:
    """Functions of a batch at work: one in this thread, several in threads of their own."""
    if len(functions) == 1:
        yield Here(functions[0])
        return
    with ThreadWorkers(functions) as workers:
        yield workers


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

    Two batches for each finder may be under way, so that none waits while rows are merged.
    """

    reads_scene = False

    def __init__(self, functions: Sequence[Callable[[TileBatch], Sequence]]):
        self.in_flight = 2 * len(functions)
        self._free: queue.SimpleQueue[Callable] = queue.SimpleQueue()
        for function in functions:
            self._free.put(function)
        self._pool = ThreadPoolExecutor(len(functions), thread_name_prefix="tiles")

    def submit(self, batch: TileBatch) -> Future:
        return self._pool.submit(self._work, batch)

    def _work(self, batch: TileBatch) -> Sequence:
        function = self._free.get()
        try:
            return function(batch)
        finally:
            self._free.put(function)

    def close(self) -> None:
        """End the threads; batches that were not begun are given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ThreadWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
