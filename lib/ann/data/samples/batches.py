"""Batches of fixed shape for the network.

A batch is a dict of arrays; B images, N = config.max_instances, M = N + LEFT_OUT_PLACES:
    images (B, H, W, C) float32, scaled; padding and cells without data are scaled zeros
    class_ids (B, M) int32: 0 where there is no instance, negative for a region that the losses ignore
    boxes (B, M, 4) float32: (y1, x1, y2, x2), pixels of the sample, y2 and x2 exclusive
    masks (B, N, h, w) uint8: of the whole image, or cut to the box and resized to config.mini_mask_shape

Of more than N objects the smallest have no mask. They are regions to ignore in the rows from N on, because
what is visible must not be learnt as background.

Sample number s (batch size * step + place in the batch) depends on the seed and s alone: not on the
threads, the batch size or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.data.dataset import LabelledImage
from ann.data.pixels.windows import Window
from ann.data.samples.augmentation import ZOOM_LIMIT
from ann.data.samples.order import VisitOrder, class_rarity, visit_weights
from ann.data.samples.resize import legacy_scale, mini_mask
from ann.data.samples.samples import (
    Sample,
    SampleSettings,
    source_size,
    training_sample,
    validation_sample,
    validation_windows,
)
from ann.errors import DatasetError
from maskrcnn.config import MaskRCNNConfig

Batch = dict[str, np.ndarray]
LEFT_OUT_SIDE = 8  # boxes left out of a sample are joined by the cells of a grid of 8 x 8 if they are many
LEFT_OUT_PLACES = LEFT_OUT_SIDE**2
COUNTED_WINDOWS = 200  # per image, in which instances are counted
PLACES_MARGIN = 1.1  # windows in between may show more than those counted


class TrainingBatches:
    """The endless row of training batches, addressed by step.

    batch_size counts the images of all devices together. An epoch visits every image once, a large one as
    often as samples fit into its area; it has `samples_per_epoch` samples.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: MaskRCNNConfig,
        settings: SampleSettings,
        *,
        batch_size: int = 1,
        seed: int = 0,
    ):
        _check(images, config)
        self._images, self._config, self._settings = tuple(images), config, settings
        self._batch_size, self._seed = batch_size, seed
        weights = visit_weights(
            images,
            config.image_shape,
            min_dim=settings.min_dim,
            max_dim=settings.max_dim,
            balance=settings.balance,
        )
        self._order = VisitOrder(weights, seed)
        self._rarity = class_rarity(images) if settings.balance else None

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples in which every image is visited."""
        return self._order.visits_per_epoch

    def sample(self, number: int) -> Sample:
        """The sample of this number, counted from 0 over all epochs."""
        generator = np.random.default_rng([self._seed, 2, number])
        image = self._images[self._order[number]]
        return training_sample(image, self._config, self._settings, generator, self._rarity)

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a step, counted from 0, or some of its samples (a host's or device's share)."""
        numbers = range(step * self._batch_size, (step + 1) * self._batch_size)[part]
        return assemble([self.sample(number) for number in numbers], self._config)


class ValidationBatches:
    """All windows of the images in a fixed order, unchanged; the last batch is filled up from the beginning.

    limit: at most that many batches, of windows spread evenly over all; None: all.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: MaskRCNNConfig,
        settings: SampleSettings,
        *,
        batch_size: int = 1,
        limit: int | None = None,
    ):
        _check(images, config)
        self._config, self._settings, self._batch_size = config, settings, batch_size
        windows = [
            (image, window)
            for image in images
            for window in validation_windows(image, config.image_shape, settings)
        ]
        if limit is not None and len(windows) > limit * batch_size:
            picks = np.linspace(0, len(windows) - 1, limit * batch_size).round().astype(int)
            windows = [windows[pick] for pick in picks]
        self._windows = windows

    def __len__(self) -> int:
        return -(-len(self._windows) // self._batch_size)

    def batch(self, number: int, part: slice = slice(None)) -> Batch:
        """The batch of this number, from 0 to len - 1, or some of its samples."""
        places = range(number * self._batch_size, (number + 1) * self._batch_size)[part]
        samples = [self.sample(place % len(self._windows)) for place in places]
        return assemble(samples, self._config)

    @property
    def config(self) -> MaskRCNNConfig:
        """The model that the batches are for."""
        return self._config

    @property
    def sample_count(self) -> int:
        """Number of windows, each counted once."""
        return len(self._windows)

    def window(self, number: int) -> tuple[LabelledImage, Window]:
        """The image of a window, counted from 0, and its place there."""
        return self._windows[number]

    def sample(self, number: int) -> Sample:
        """The sample of the window of this number, counted from 0."""
        image, window = self._windows[number]
        return validation_sample(image, window, self._config, self._settings)


def assemble(samples: Sequence[Sample], config: MaskRCNNConfig) -> Batch:
    """Put samples into the arrays of one batch."""
    count, limit = len(samples), config.max_instances
    mask_shape = config.mini_mask_shape or config.image_shape
    batch = {
        "images": np.stack([sample.image for sample in samples]),
        "class_ids": np.zeros((count, limit + LEFT_OUT_PLACES), np.int32),
        "boxes": np.zeros((count, limit + LEFT_OUT_PLACES, 4), np.float32),
        "masks": np.zeros((count, limit, *mask_shape), np.uint8),
    }
    for place, sample in enumerate(samples):
        batch["class_ids"][place, : len(sample.class_ids)] = sample.class_ids
        for index, mask in enumerate(sample.masks):
            batch["boxes"][place, index] = mask.box
            if config.mini_mask_shape:
                batch["masks"][place, index] = mini_mask(mask, config.mini_mask_shape)
            else:
                y1, x1, y2, x2 = mask.box
                batch["masks"][place, index, y1:y2, x1:x2] = mask.pixels
        regions = join_boxes(sample.left_out, config.image_shape)
        batch["class_ids"][place, limit : limit + len(regions)] = -1
        batch["boxes"][place, limit : limit + len(regions)] = regions
    return batch


def join_boxes(boxes: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """At most `LEFT_OUT_PLACES` boxes that cover these (n, 4): of more, neighbours become one."""
    if len(boxes) <= LEFT_OUT_PLACES:
        return boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = np.clip(centres * LEFT_OUT_SIDE / image_shape, 0, LEFT_OUT_SIDE - 1).astype(int)
    _, joined = np.unique(cells @ (LEFT_OUT_SIDE, 1), return_inverse=True)
    joined = joined.ravel()
    union = np.full((joined.max() + 1, 4), (np.inf, np.inf, -np.inf, -np.inf), boxes.dtype)
    np.minimum.at(union[:, :2], joined, boxes[:, :2])
    np.maximum.at(union[:, 2:], joined, boxes[:, 2:])
    return union


def most_instances(
    images: Sequence[LabelledImage],
    image_shape: tuple[int, int],
    *,
    min_dim: int = 0,
    zoom: float = ZOOM_LIMIT,
) -> int:
    """The highest number of boxes in a sample, counted in two windows each at up to 200 objects per image.

    min_dim: see `SampleSettings`; zoom: a sample may show its objects at 1 / zoom of their size, so that
    `zoom` squared times the ground comes into view. Linear in the objects of an image.
    """
    most = 0
    for image in images:
        scale = legacy_scale(image.height, image.width, min_dim, None) / zoom
        sides = np.array(source_size(image, scale, image_shape))
        boxes = image.boxes.astype(np.float64)
        picked = boxes[:: max(1, len(boxes) // COUNTED_WINDOWS)]
        around = (picked[:, :2] + picked[:, 2:] - sides) / 2
        from_edge = picked[:, 2:] - 1  # of an even row of objects no window shows more
        for start in np.clip(np.concatenate([around, from_edge]), 0, (image.height, image.width) - sides):
            seen = (boxes[:, :2] < start + sides) & (boxes[:, 2:] > start)
            most = max(most, int(seen.all(axis=1).sum()))
    return most


def suggest_max_instances(
    images: Sequence[LabelledImage],
    image_shape: tuple[int, int],
    *,
    min_dim: int = 0,
    zoom: float = ZOOM_LIMIT,
    at_most: int = 1000,
) -> int:
    """A number of places that samples hardly ever exceed (see `most_instances`), a multiple of 10."""
    most = most_instances(images, image_shape, min_dim=min_dim, zoom=zoom)
    return int(min(at_most, max(10, np.ceil(most * PLACES_MARGIN / 10) * 10)))


def _check(images: Sequence[LabelledImage], config: MaskRCNNConfig) -> None:
    if not images:
        raise DatasetError("There are no images to make batches of.")
    for image in images:
        if image.bands != config.bands:
            raise DatasetError(
                f"Image {image.path} has {image.bands} bands, the model {config.bands}. Use images with the "
                "bands that the model was made for."
            )
