"""Make numbered items ahead of time in background threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Iterator, Generic[Item]):
    """Iterator over make(start), make(start + 1), ... up to `stop`, or without end.

    `depth` items at most are made ahead, so memory is that of `depth` + 1 items. An error in `make` is
    raised by the `next` that would have returned the item. Use it in a `with` block, or call `close`:
    items under way are finished, no further ones are begun. workers 0: everything happens inside of `next`.
    """

    def __init__(
        self,
        make: Callable[[int], Item],
        *,
        start: int = 0,
        stop: int | None = None,
        workers: int = 2,
        depth: int | None = None,
    ):
        self._make = make
        self._next = start
        self._stop = stop
        self._depth = max(1, workers + 1 if depth is None else depth)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None
        self._waiting: deque[Future] = deque()
        self._closed = False

    def __next__(self) -> Item:
        if self._closed:
            raise StopIteration
        if self._pool is None:
            if self._next == self._stop:
                raise StopIteration
            self._next += 1
            return self._make(self._next - 1)
        self._fill()
        if not self._waiting:
            self.close()
            raise StopIteration
        item = self._waiting.popleft().result()
        self._fill()
        return item

    def _fill(self) -> None:
        while len(self._waiting) < self._depth and self._next != self._stop:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1

    def close(self) -> None:
        """Stop the threads and drop what they made; `next` then ends the iteration."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Prefetcher[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
