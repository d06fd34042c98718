"""From one labelled image to one sample of the network's size: choose a window, resize, change, pad.

Nothing is resized away: a window of the network's size is cut from the image at its own resolution. Images
whose shorter side is below `min_dim` are enlarged as the legacy models did, smaller ones are padded with
zeros. Objects cut by the window's border stay when enough of them is inside, else they are marked as a
region that the losses ignore (negative class id), because half a roof is no background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ann.config import ModelConfig
from ann.data.dataset import LabelledImage
from ann.data.example import Example
from ann.data.outlines.masks import CroppedMask
from ann.data.pixels.windows import Window, grid_windows, whole
from ann.data.samples.augmentation import (
    Augmentation,
    adjust_bands,
    draw_augmentation,
    orient_image,
    orient_mask,
)
from ann.data.samples.resize import legacy_scale, pad_image, resample, resize_bilinear
from ann.data.samples.scaling import check_input, scale_pixels

WINDOW_DRAWS = 5  # a window without objects and hardly any data is drawn again, at most that often
SMALLEST_VALID_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How samples are made.

    min_dim: images whose shorter side is below are enlarged to it, pixels; 0: none is.
    max_dim: the legacy rule, images whose longer side is above are shrunk to it; None: none is shrunk.
    augment: change samples by chance; zoom: also their scale.
    balance: prefer images and objects of rare classes.
    random_share: share of windows that are placed without looking at objects, so that empty ground is seen.
    visible_share: a cut object stays if that share of its area is inside ...
    visible_pixels: ... and that many pixels.
    """

    min_dim: int = 0
    max_dim: int | None = None
    augment: bool = True
    zoom: bool = True
    balance: bool = False
    random_share: float = 0.1
    visible_share: float = 0.25
    visible_pixels: int = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """An example at its place in a sample: what the labels have to follow.

    image: (H, W, C) float32, scaled; content: (y1, x1, y2, x2), the part of it that is no padding.
    before, after: (height, width) of what was read, before and after it was resized; top, left: where it was
    put, before it was turned; orientation: of the eight flips and turns, 0 for none.
    """

    image: np.ndarray
    content: tuple[int, int, int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    top: int
    left: int
    orientation: int


@dataclass(frozen=True, kw_only=True)
class LabelKind:
    """How labels of one kind become a part of samples, and samples batches; one in each file of `targets`.

    finish: example, where it was placed, the model's config and settings -> a sample, which has at least
        `image` and `content` of `Placed`.
    assemble: samples and the model's config -> {name: array with a row for each sample}.
    resize: how images are resized that aren't changed by chance, (image, height, width) -> image.
    """

    finish: Callable[[Example, Placed, ModelConfig, SampleSettings], object]
    assemble: Callable[[Sequence, ModelConfig], dict[str, np.ndarray]]
    resize: Callable[[np.ndarray, int, int], np.ndarray] = resize_bilinear


def training_sample(
    image: LabelledImage,
    config: ModelConfig,
    settings: SampleSettings,
    kind: LabelKind,
    generator: np.random.Generator,
    rarity: np.ndarray | None = None,
):
    """Draw one sample. rarity: (classes,) weights of the classes when a window's object is chosen, None:
    equal.
    """
    height, width = config.image_shape
    change = None
    if settings.augment:
        change = draw_augmentation(generator, image.bands, square=height == width, zoom=settings.zoom)
    scale = legacy_scale(image.height, image.width, settings.min_dim, settings.max_dim)
    scale *= change.zoom if change else 1.0
    rows, columns = source_size(image, scale, config.image_shape)
    for _ in range(WINDOW_DRAWS):
        window = _draw_window(image, rows, columns, settings.random_share, generator, rarity)
        example = image.read(window)
        seen = 1.0 if example.valid is None else example.valid.mean()
        if example.masks or seen >= SMALLEST_VALID_SHARE or (rows, columns) == (image.height, image.width):
            break
    return kind.finish(example, place_example(example, scale, config, change), config, settings)


def validation_windows(
    image: LabelledImage, image_shape: tuple[int, int], settings: SampleSettings
) -> tuple[Window, ...]:
    """The windows, in pixels of the image, whose samples cover it all; always the same."""
    scale = legacy_scale(image.height, image.width, settings.min_dim, settings.max_dim)
    rows, columns = source_size(image, scale, image_shape)
    return tuple(grid_windows(image.height, image.width, rows, columns))


def validation_sample(
    image: LabelledImage,
    window: Window,
    config: ModelConfig,
    settings: SampleSettings,
    kind: LabelKind,
):
    """The sample of a window of `validation_windows`, nothing left to chance."""
    scale = legacy_scale(image.height, image.width, settings.min_dim, settings.max_dim)
    example = image.read(window)
    placed = place_example(example, scale, config, None, kind.resize)
    return kind.finish(example, placed, config, settings)


def source_size(image: LabelledImage, scale: float, image_shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the image that fill a sample at this scale, at most all there are."""
    rows, columns = (max(1, round(side / scale)) for side in image_shape)
    return min(rows, image.height), min(columns, image.width)


def _draw_window(
    image: LabelledImage,
    rows: int,
    columns: int,
    random_share: float,
    generator: np.random.Generator,
    rarity: np.ndarray | None,
) -> Window:
    if (rows, columns) == (image.height, image.width):
        return whole(rows, columns)
    free_rows, free_columns = image.height - rows, image.width - columns
    objects = np.flatnonzero(image.class_ids > 0)
    if len(objects) == 0 or generator.random() < random_share:
        row, column = generator.integers(free_rows + 1), generator.integers(free_columns + 1)
    else:
        weights = None
        if rarity is not None:
            weights = rarity[image.class_ids[objects] - 1]
            weights = weights / weights.sum()
        y1, x1, y2, x2 = image.boxes[generator.choice(objects, p=weights)]
        # The object's centre comes to lie in the middle half of the window.
        row = round((y1 + y2) / 2 - rows * generator.uniform(0.25, 0.75))
        column = round((x1 + x2) / 2 - columns * generator.uniform(0.25, 0.75))
    return Window(
        row=int(np.clip(row, 0, free_rows)),
        column=int(np.clip(column, 0, free_columns)),
        height=rows,
        width=columns,
    )


def place_example(
    example: Example,
    scale: float,
    config: ModelConfig,
    change: Augmentation | None,
    resize: Callable[[np.ndarray, int, int], np.ndarray] = resize_bilinear,
) -> Placed:
    """Bring what was read to the network's size and scaling; `change` None: nothing is changed, and `resize`
    is what resizes it.

    Raises:
        DatasetError: see `check_input`.
    """
    image, valid = example.image, example.valid
    check_input(image, config.band_mean, config.band_scale, example.name)
    before = image.shape[:2]
    after = tuple(
        min(side, max(1, round(length * scale)))
        for side, length in zip(config.image_shape, before, strict=True)
    )
    if change is not None:
        image = adjust_bands(image, valid, change.contrast, change.brightness)
    if after != before:
        image = (resize if change is None else resample)(image, *after)
    image, ((top, _), (left, _)) = pad_image(image, *config.image_shape)
    content = CroppedMask(row=top, column=left, pixels=np.ones(after, dtype=bool))
    orientation = change.orientation if change is not None else 0
    if change is not None:
        image = orient_image(image, orientation)
        content = orient_mask(content, orientation, *config.image_shape)
    return Placed(
        image=scale_pixels(image, config.band_mean, config.band_scale),
        content=content.box,
        before=before,
        after=after,
        top=top,
        left=left,
        orientation=orientation,
    )
