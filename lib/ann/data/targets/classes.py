"""The class of the image as a whole in samples and batches.

A batch has beside `images`; B images:
    labels (B,) int32: class ids, 1 is the first class
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.example import Example
from ann.data.samples.resize import resample
from ann.data.samples.samples import LabelKind, Placed, SampleSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSample:
    """One image for the network: image (H, W, C) float32, scaled; its class id.

    content: (y1, x1, y2, x2), the part of `image` that is no padding.
    """

    image: np.ndarray
    content: tuple[int, int, int, int]
    class_id: int


def finish(example: Example, placed: Placed, config, settings: SampleSettings) -> ClassSample:
    """An example at its place with its class."""
    image = np.ascontiguousarray(placed.image)
    return ClassSample(image=image, content=placed.content, class_id=example.class_id)


def assemble(samples: Sequence[ClassSample], config) -> dict[str, np.ndarray]:
    """Put samples into the arrays of one batch."""
    return {
        "images": np.stack([sample.image for sample in samples]),
        "labels": np.array([sample.class_id for sample in samples], dtype=np.int32),
    }


IMAGE_CLASSES = LabelKind(finish=finish, assemble=assemble, resize=resample)
