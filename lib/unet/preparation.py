"""From labelled images and options to the description of a U-Net."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ann.data.dataset import Dataset
from ann.data.samples.order import evenly
from ann.data.samples.samples import validation_windows
from ann.data.targets.cells import example_raster
from ann.training.image_size import ImageSize
from ann.training.preparation import (
    band_scaling,
    check_initial_model,
    shared_values,
    validation_settings,
)
from ann.weights import ModelFile
from unet.config import UNetConfig

COUNTED_WINDOWS = 64  # in which the cells of each class are counted
LARGEST_WEIGHT = 10.0


def describe_model(
    dataset: Dataset,
    size: ImageSize,
    *,
    architecture: str,
    loss: str,
    weighted: bool,
    initial: ModelFile | None,
    other_classes: bool,
) -> UNetConfig:
    """The description of the model to train; weighted: classes count by how rare they are.

    Bands are scaled as the initial model has them, whose weights were learnt with that.

    Raises:
        AnnError: the initial model doesn't fit architecture or classes; `other_classes` (flag -e) allows
            other classes.
    """
    values = shared_values(dataset, size, architecture) | {"loss": loss}
    values["class_weights"] = class_weights(dataset, values["image_shape"], size) if weighted else None
    if initial is None:
        return UNetConfig(**(values | band_scaling(dataset)))
    check_initial_model(initial, dataset, architecture, other_classes)
    if initial.config.bands != dataset.images[0].bands:
        values |= band_scaling(dataset)
    return replace(initial.config, **values)


def class_weights(dataset: Dataset, image_shape: tuple[int, int], size: ImageSize) -> tuple[float, ...]:
    """Weights of the background and each class: the inverse of the root of their share of the cells.

    Their mean over the cells is about 1; none is above LARGEST_WEIGHT. Counted in windows spread over the
    images.
    """
    settings = validation_settings(size)
    windows = [
        (image, window)
        for image in dataset.images
        for window in validation_windows(image, image_shape, settings)
    ]
    counts = np.ones(len(dataset.classes) + 1)
    for pick in evenly(len(windows), COUNTED_WINDOWS):
        image, window = windows[pick]
        raster = example_raster(image.read(window))
        counts += np.bincount(raster[raster >= 0], minlength=len(counts))[: len(counts)]
    shares = counts / counts.sum()
    weights = 1 / np.sqrt(shares)
    weights /= (weights * shares).sum()
    return tuple(float(round(weight, 4)) for weight in np.minimum(weights, LARGEST_WEIGHT))
