"""What detection asks of a scene: its size and windows of its pixels."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Scene(Protocol):
    """An image or a set of maps of one extent. Windows are always inside of it.

    `read` is called from one thread at a time, but not from the thread that made the scene.
    """

    name: str
    height: int
    width: int
    bands: int

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, bands) of any real type, and (height, width) bool: False without data."""
        ...


class ArrayScene:
    """A scene that is in memory already: pixels (H, W, C) of any real type, valid (H, W) bool or None."""

    def __init__(self, pixels: np.ndarray, valid: np.ndarray | None = None, name: str = "array"):
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise ValueError(f"Expected pixels of shape (height, width, bands), received {pixels.shape}")
        if valid is not None and valid.shape != pixels.shape[:2]:
            raise ValueError(f"Expected valid of shape {pixels.shape[:2]}, received {valid.shape}")
        self.name = name
        self.height, self.width, self.bands = pixels.shape
        self._pixels = pixels
        self._valid = np.ones(pixels.shape[:2], dtype=bool) if valid is None else valid

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene.read`."""
        window = np.s_[row : row + height, column : column + width]
        return self._pixels[window], self._valid[window]
