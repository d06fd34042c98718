"""Detection on several devices at a time: a finder for each of them, in a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ann.inference.tile_rows import TileBatch


class ThreadWorkers:
    """Workers for `find_by_workers`; a batch goes to the finder that is free first. Close them at the end.

    Two batches for each finder may be under way, so that none waits while rows are merged.
    """

    reads_scene = False

    def __init__(self, finders: Sequence[Callable]):
        self.in_flight = 2 * len(finders)
        self._free: queue.SimpleQueue[Callable] = queue.SimpleQueue()
        for finder in finders:
            self._free.put(finder)
        self._pool = ThreadPoolExecutor(len(finders), thread_name_prefix="detection")

    def submit(self, batch: TileBatch) -> Future:
        return self._pool.submit(self._find, batch)

    def _find(self, batch):
        finder = self._free.get()
        try:
            return finder(batch)
        finally:
            self._free.put(finder)

    def close(self) -> None:
        """End the threads; batches that were not begun are given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ThreadWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
