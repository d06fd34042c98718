"""Labelled instances in samples and batches.

A batch has beside `images`; B images, N = config.max_instances, M = N + LEFT_OUT_PLACES:
    class_ids (B, M) int32: 0 where there is no instance, negative for a region that the losses ignore
    boxes (B, M, 4) float32: (y1, x1, y2, x2), pixels of the sample, y2 and x2 exclusive
    masks: (B, N, H, W / 8) uint8, of the whole image, eight neighbours of a row in the bits of a byte, the
    first in
        the highest; or (B, N, *config.mini_mask_shape) uint8, cut to the box and resized, 0 or 1

Of more than N objects the smallest have no mask. They are regions to ignore in the rows from N on, because
what is visible must not be learnt as background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.dataset import LabelledImage
from ann.data.example import Example
from ann.data.outlines.masks import CroppedMask
from ann.data.samples.augmentation import ZOOM_LIMIT, orient_mask
from ann.data.samples.resize import legacy_scale, mini_mask, resize_mask
from ann.data.samples.samples import LabelKind, Placed, SampleSettings, source_size

LEFT_OUT_SIDE = 8  # boxes left out of a sample are joined by the cells of a grid of 8 x 8 if they are many
LEFT_OUT_PLACES = LEFT_OUT_SIDE**2
COUNTED_WINDOWS = 200  # per image, in which instances are counted
PLACES_MARGIN = 1.1  # windows in between may show more than those counted


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image for the network: image (H, W, C) float32, scaled; masks in its pixels; class_ids (n,) int32.

    content: (y1, x1, y2, x2), the part of `image` that is no padding.
    left_out: (m, 4) float32 boxes, as `content`, of what had no place among the network's `max_instances`.
    """

    image: np.ndarray
    content: tuple[int, int, int, int]
    masks: tuple[CroppedMask, ...]
    class_ids: np.ndarray
    left_out: np.ndarray


def finish(example: Example, placed: Placed, config, settings: SampleSettings) -> Sample:
    """The instances of an example at its place; config: of a model with `max_instances`."""
    masks, class_ids = [], []
    visible = np.ones(len(example.masks)) if example.visible is None else example.visible
    for mask, class_id, share in zip(example.masks, example.class_ids, visible, strict=True):
        resized = resize_mask(mask, placed.before, placed.after, placed.top, placed.left)
        if resized is None:
            continue
        cut_away = share < 1 and (share < settings.visible_share or resized.area < settings.visible_pixels)
        masks.append(orient_mask(resized, placed.orientation, *config.image_shape))
        class_ids.append(-abs(class_id) if cut_away else class_id)
    ranked = _by_importance(masks, class_ids)
    kept = sorted(ranked[: config.max_instances])
    left_out = [masks[index].box for index in ranked[config.max_instances :]]
    return Sample(
        image=placed.image,
        content=placed.content,
        masks=tuple(masks[index] for index in kept),
        class_ids=np.array([class_ids[index] for index in kept], dtype=np.int32),
        left_out=np.array(left_out, dtype=np.float32).reshape(-1, 4),
    )


def _by_importance(masks: Sequence[CroppedMask], class_ids: Sequence[int]) -> list[int]:
    """Indices of the objects, the largest first, then those of the regions."""
    return sorted(range(len(masks)), key=lambda index: (class_ids[index] < 0, -masks[index].area, index))


def assemble(samples: Sequence[Sample], config) -> dict[str, np.ndarray]:
    """Put samples into the arrays of one batch."""
    count, limit = len(samples), config.max_instances
    height, width = config.image_shape
    mask_shape = config.mini_mask_shape or (height, width // 8)
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
                draw_bits(batch["masks"][place, index], mask)
        regions = join_boxes(sample.left_out, config.image_shape)
        batch["class_ids"][place, limit : limit + len(regions)] = -1
        batch["boxes"][place, limit : limit + len(regions)] = regions
    return batch


def draw_bits(bits: np.ndarray, mask: CroppedMask) -> None:
    """Set the pixels of a mask in an empty image (H, W / 8) of packed bits."""
    y1, x1, y2, x2 = mask.box
    first, last = x1 // 8, -(-x2 // 8)
    pixels = np.pad(mask.pixels, ((0, 0), (x1 - 8 * first, 8 * last - x2)))
    bits[y1:y2, first:last] = np.packbits(pixels, axis=1)


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


INSTANCES = LabelKind(finish=finish, assemble=assemble)
