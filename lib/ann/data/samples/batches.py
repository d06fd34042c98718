"""Batches of fixed shape for the network: dicts of arrays, a row for each sample.

Every batch has `images` (B, H, W, C) float32, scaled; padding and cells without data are scaled zeros. What
else is in it depends on the kind of labels, see `targets`.

Sample number s (batch size * step + place in the batch) depends on the seed and s alone: not on the
threads, the batch size or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ann.config import ModelConfig
from ann.data.dataset import LabelledImage
from ann.data.pixels.windows import Window
from ann.data.samples.order import VisitOrder, class_rarity, evenly, visit_weights
from ann.data.samples.prefetch import Prefetcher
from ann.data.samples.samples import (
    LabelKind,
    SampleSettings,
    training_sample,
    validation_sample,
    validation_windows,
)
from ann.data.targets.instances import INSTANCES
from ann.devices.sharing import ALONE, Sharing
from ann.errors import DatasetError

Batch = dict[str, np.ndarray]


class TrainingBatches:
    """The endless row of training batches, addressed by step.

    batch_size counts the images of all devices together. An epoch visits every image once, a large one as
    often as samples fit into its area; it has `samples_per_epoch` samples.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: ModelConfig,
        settings: SampleSettings,
        *,
        batch_size: int = 1,
        seed: int = 0,
        kind: LabelKind = INSTANCES,
    ):
        _check(images, config)
        self._images, self._config, self._settings = tuple(images), config, settings
        self._kind = kind
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

    def sample(self, number: int):
        """The sample of this number, counted from 0 over all epochs."""
        generator = np.random.default_rng([self._seed, 2, number])
        image = self._images[self._order[number]]
        return training_sample(image, self._config, self._settings, self._kind, generator, self._rarity)

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a step, counted from 0, or some of its samples (a host's or device's share)."""
        numbers = range(step * self._batch_size, (step + 1) * self._batch_size)[part]
        return self._kind.assemble([self.sample(number) for number in numbers], self._config)


class ValidationBatches:
    """All windows of the images in a fixed order, unchanged; the last batch is filled up from the beginning.

    limit: at most that many batches, of windows spread evenly over all; None: all.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: ModelConfig,
        settings: SampleSettings,
        *,
        batch_size: int = 1,
        limit: int | None = None,
        kind: LabelKind = INSTANCES,
    ):
        _check(images, config)
        self._config, self._settings, self._batch_size = config, settings, batch_size
        self._kind = kind
        windows = [
            (image, window)
            for image in images
            for window in validation_windows(image, config.image_shape, settings)
        ]
        if limit is not None and len(windows) > limit * batch_size:
            windows = [windows[pick] for pick in evenly(len(windows), limit * batch_size)]
        self._windows = windows

    def __len__(self) -> int:
        return -(-len(self._windows) // self._batch_size)

    def batch(self, number: int, part: slice = slice(None)) -> Batch:
        """The batch of this number, from 0 to len - 1, or some of its samples."""
        places = range(number * self._batch_size, (number + 1) * self._batch_size)[part]
        samples = [self.sample(place % len(self._windows)) for place in places]
        return self._kind.assemble(samples, self._config)

    @property
    def config(self) -> ModelConfig:
        """The model that the batches are for."""
        return self._config

    @property
    def sample_count(self) -> int:
        """Number of windows, each counted once."""
        return len(self._windows)

    def window(self, number: int) -> tuple[LabelledImage, Window]:
        """The image of a window, counted from 0, and its place there."""
        return self._windows[number]

    def sample(self, number: int):
        """The sample of the window of this number, counted from 0."""
        image, window = self._windows[number]
        return validation_sample(image, window, self._config, self._settings, self._kind)


def window_name(image: LabelledImage, window: Window) -> str:
    """What to call a window: as its image, with its place if it is a part of it."""
    if (window.height, window.width) == (image.height, image.width):
        return image.name
    y1, x1, y2, x2 = window.box
    return f"{image.name}[{y1}:{y2},{x1}:{x2}]"


def padded_batches(
    windows: ValidationBatches, batch_size: int, workers: int, sharing: Sharing = ALONE
) -> Iterator[tuple[range, list, np.ndarray]]:
    """This process' part of the windows in batches: their numbers, samples, and images (B, H, W, C) float32.

    batch_size: of all processes together. The last batch is filled up with zeros: networks want one size.
    """
    numbers = sharing.part(windows.sample_count)
    batch_size = max(1, batch_size // sharing.size)

    def sample(place: int):
        return windows.sample(numbers[place])

    with Prefetcher(sample, stop=len(numbers), workers=workers) as ready:
        for start in range(0, len(numbers), batch_size):
            part = numbers[start : start + batch_size]
            samples = [next(ready) for _ in part]
            images = np.zeros((batch_size, *samples[0].image.shape), np.float32)
            images[: len(samples)] = [sample.image for sample in samples]
            yield part, samples, images


def _check(images: Sequence[LabelledImage], config: ModelConfig) -> None:
    if not images:
        raise DatasetError("There are no images to make batches of.")
    for image in images:
        if image.bands != config.bands:
            raise DatasetError(
                f"Image {image.path} has {image.bands} bands, the model {config.bands}. Use images with the "
                "bands that the model was made for."
            )
