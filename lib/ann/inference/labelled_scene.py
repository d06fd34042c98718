"""A labelled image as a scene, to try a network on it."""

from __future__ import annotations

import numpy as np

from ann.data.dataset import LabelledImage
from ann.data.pixels.windows import Window


class LabelledScene:
    """The pixels of a labelled image as a scene to detect in."""

    def __init__(self, image: LabelledImage):
        self.name = image.name
        self.height, self.width, self.bands = image.height, image.width, image.bands
        self._read = image.read

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `inference.scene.Scene`."""
        example = self._read(Window(row=row, column=column, height=height, width=width))
        valid = np.ones((height, width), bool) if example.valid is None else example.valid
        return example.image, valid
