"""The last few images of formats that are decoded as a whole for any window (PNG, JPEG)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

Decoded = tuple[np.ndarray, np.ndarray | None]  # the image (H, W, C), and where it has data (H, W) or None


class DecodedImages:
    """Keeps decoded images until they take more than `limit` bytes, then drops those not used for longest.

    Threads may share it. An image of more than a quarter of the limit is not kept.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._images: OrderedDict[Hashable, Decoded] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def accepts(self, size: int) -> bool:
        """Whether an image of that many bytes would be kept."""
        return size <= self._limit // 4

    def get(self, key: Hashable) -> Decoded | None:
        """The image of this key, if it is still there. It must not be changed."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
            return self._images.get(key)

    def put(self, key: Hashable, image: Decoded) -> None:
        """Keep an image."""
        if not self.accepts(_bytes(image)):
            return
        with self._lock:
            if key in self._images:
                return
            self._images[key] = image
            self._size += _bytes(image)
            while self._size > self._limit:
                _, dropped = self._images.popitem(last=False)
                self._size -= _bytes(dropped)


def _bytes(image: Decoded) -> int:
    return sum(part.nbytes for part in image if part is not None)
