"""The class of each cell in samples and batches.

A batch has beside `images`; B images:
    labels (B, H, W) int16: class ids, UNKNOWN where nothing is known, which padding is, too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.example import Example
from ann.data.outlines.class_raster import UNKNOWN, rasterise
from ann.data.samples.augmentation import orient_image
from ann.data.samples.resize import nearest
from ann.data.samples.samples import LabelKind, Placed, SampleSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSample:
    """One image for the network: image (H, W, C) float32, scaled; labels (H, W) int16, class ids.

    content: (y1, x1, y2, x2), the part of `image` that is no padding.
    """

    image: np.ndarray
    content: tuple[int, int, int, int]
    labels: np.ndarray


def example_raster(example: Example) -> np.ndarray:
    """The class of each cell of an example, (H, W) int16, whether cells or instances are labelled."""
    if example.class_raster is not None:
        return example.class_raster
    return rasterise(example.masks, example.class_ids, example.image.shape[:2], example.valid)


def finish(example: Example, placed: Placed, config, settings: SampleSettings) -> CellSample:
    """The class raster of an example at its place."""
    raster = example_raster(example)
    if placed.after != placed.before:
        rows, columns = (
            nearest(before, after) for before, after in zip(placed.before, placed.after, strict=True)
        )
        raster = raster[np.ix_(rows, columns)]
    labels = np.full(config.image_shape, UNKNOWN, dtype=np.int16)
    height, width = placed.after
    labels[placed.top : placed.top + height, placed.left : placed.left + width] = raster
    if placed.orientation:
        labels = orient_image(labels, placed.orientation)
    return CellSample(image=placed.image, content=placed.content, labels=np.ascontiguousarray(labels))


def assemble(samples: Sequence[CellSample], config) -> dict[str, np.ndarray]:
    """Put samples into the arrays of one batch."""
    return {
        "images": np.stack([sample.image for sample in samples]),
        "labels": np.stack([sample.labels for sample in samples]),
    }


CELLS = LabelKind(finish=finish, assemble=assemble)
