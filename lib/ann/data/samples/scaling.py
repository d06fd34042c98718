"""Scaling of pixels to the network's input: (pixel - mean) / scale, band by band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ann.data.pixels.windows import Window, grid_windows
from ann.data.samples.values import (
    check_fill,
    how_to_declare,
    number_text,
    pixels_with_data,
    windows_on_objects,
)
from ann.errors import DatasetError

if TYPE_CHECKING:
    from ann.data.dataset import LabelledImage

BLOCK_SIDE = 1024  # pixels; images are read in blocks of this size at most
HIGHEST_INPUT = 1e6  # standard deviations from the mean


def scale_pixels(image: np.ndarray, mean: Sequence[float], scale: Sequence[float]) -> np.ndarray:
    """(image - mean) / scale as float32 of the same shape (..., C). Pad with zeros before, not after."""
    mean, scale = np.asarray(mean, np.float32), np.asarray(scale, np.float32)
    if image.shape[-1] != len(mean) or len(mean) != len(scale):
        raise ValueError(f"Expected {len(mean)} bands (as the mean has), received {image.shape[-1]}")
    scaled = np.array(image, dtype=np.float32, order="C")
    rows = scaled.reshape(-1, image.shape[-2] * len(mean))  # whole rows at once: 5 times faster than by pixel
    rows -= np.tile(mean, image.shape[-2])
    if np.any(scale != 1):
        rows /= np.tile(scale, image.shape[-2])
    return scaled


def check_input(image: np.ndarray, mean: Sequence[float], scale: Sequence[float], name: str) -> None:
    """See that raw pixels, (..., C), are no numbers that would turn the loss into none.

    Raises:
        DatasetError: some lie a million standard deviations from the mean; the message names image and value.
    """
    if image.dtype.itemsize == 1 or not image.size:
        return
    lowest, highest = float(image.min()), float(image.max())
    if max(abs(lowest), abs(highest)) < HIGHEST_INPUT * min(scale) - max(map(abs, mean)):
        return
    for band in range(image.shape[-1]):
        values = image[..., band]
        for value in (values.min(), values.max()):
            if not abs(float(value) - mean[band]) <= HIGHEST_INPUT * scale[band]:
                raise DatasetError(
                    f"Image {name}, band {band + 1} has the value {number_text(value)}, but the values that "
                    f"the model is trained on lie around {mean[band]:.6g}, give or take {scale[band]:.6g}. "
                    f"Does it stand for missing data? {how_to_declare(value)}"
                )


def band_statistics(
    images: Sequence[LabelledImage], sample_limit: int = 100, seed: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band, cells without data left out.

    At most `sample_limit` blocks of 1024 x 1024 pixels are read, spread over all images by chance (fixed by
    `seed`), one after the other: memory is that of one block. Where none of an image's blocks has data, as
    many are read around its objects. A band that is the same everywhere gets 1.

    Raises:
        DatasetError: there is no image, no cell has data, or a value stands for missing data and isn't
            declared so.
    """
    if not images:
        raise DatasetError("There is no image to compute band statistics from.")
    order = np.random.default_rng([seed, 17]).permutation(len(images))[:sample_limit]
    blocks_per_image = max(1, sample_limit // len(images))
    moments = Moments.of(np.zeros((0, images[0].bands)))
    for index in order:
        image = images[index]
        windows = list(grid_windows(image.height, image.width, BLOCK_SIDE, BLOCK_SIDE))
        generator = np.random.default_rng([seed, 18, int(index)])
        picks = sorted(generator.permutation(len(windows))[:blocks_per_image])
        found = _moments(image, [windows[pick] for pick in picks])
        if not found.count:
            found = _moments(image, windows_on_objects(image, BLOCK_SIDE, blocks_per_image, generator))
        moments += found
    return moments.scaling()


def _moments(image: LabelledImage, windows: Sequence[Window]) -> Moments:
    moments = Moments.of(np.zeros((0, image.bands)))
    for window in windows:
        pixels = pixels_with_data(image, window)
        check_fill(image, pixels)
        moments += Moments.of(pixels)
    return moments


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean (C,) and sum of squared deviations (C,) float64 of pixels."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> Moments:
        """Those of (n, C) pixels."""
        bands = np.ascontiguousarray(pixels.T, dtype=np.float64)  # sums along memory are many times faster
        if not bands.shape[1]:
            return cls(0, np.zeros(len(bands)), np.zeros(len(bands)))
        mean = bands.mean(axis=1)
        bands = bands - mean[:, None]
        return cls(bands.shape[1], mean, np.einsum("bn,bn->b", bands, bands))

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets of pixels together (Chan's update)."""
        if not self.count or not other.count:
            return self if self.count else other
        total, shift = self.count + other.count, other.mean - self.mean
        return Moments(
            total,
            self.mean + shift * (other.count / total),
            self.squares + other.squares + np.square(shift) * (self.count * other.count / total),
        )

    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, standard deviation) of each band; a band of one value gets the deviation 1.

        Raises:
            DatasetError: there are no pixels.
        """
        if not self.count:
            raise DatasetError("No cell of the training images has data; check their no-data value.")
        deviation = np.sqrt(self.squares / self.count)
        deviation[deviation == 0] = 1.0
        return tuple(float(value) for value in self.mean), tuple(float(value) for value in deviation)
