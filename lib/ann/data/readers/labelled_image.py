"""From an image file and the shapes of its instances to windows with masks: what all formats end in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.dataset import LabelledImage, count_class_ids
from ann.data.example import Example
from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.outlines.shapes import Shape
from ann.data.pixels.rasters import ImageHeader, read_pixels
from ann.data.pixels.windows import Window, whole

PixelSource = Callable[[Window], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class FilePixels:
    """The pixels of an image file: called with a window it gives what `read_pixels` gives."""

    path: str

    def __call__(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        return read_pixels(self.path, window)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageReader:
    """Reads windows of one image; `boxes` (N, 4), limited to the image, find the shapes that a window
    touches.

    pixels: gives for a window the image (H, W, C) and where it has data, (H, W) bool or None for everywhere.
    """

    pixels: PixelSource
    name: str
    height: int
    width: int
    shapes: tuple[Shape, ...]
    boxes: np.ndarray
    class_ids: np.ndarray

    def __call__(self, window: Window | None = None) -> Example:
        """The window, or the whole image, with the instances in it.

        Instances keep what is inside of the window and shows data.

        Raises:
            DatasetError: the pixels can't be read.
        """
        part = window or whole(self.height, self.width)
        image, valid = self.pixels(part)
        masks, class_ids, visible = [], [], []
        for index in touching(self.boxes, part):
            shape = self.shapes[index]
            mask = shape.inside(part)
            whole_seen = _covers(part, shape.box)
            if mask is not None and valid is not None:
                seen = _with_data(mask, valid)
                whole_seen = whole_seen and seen is mask
                mask = seen
            if mask is not None:
                masks.append(mask)
                class_ids.append(self.class_ids[index])
                visible.append(1.0 if whole_seen else min(1.0, mask.area / max(shape.area, 1)))
        return Example(
            image=image,
            masks=tuple(masks),
            class_ids=np.array(class_ids, dtype=np.int32),
            name=self.name,
            valid=valid,
            visible=np.array(visible, dtype=np.float32),
        )


def touching(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Indices of the boxes (N, 4) that share a pixel with a window, ascending."""
    y1, x1, y2, x2 = window.box
    return np.flatnonzero((boxes[:, 0] < y2) & (boxes[:, 2] > y1) & (boxes[:, 1] < x2) & (boxes[:, 3] > x1))


def _with_data(mask: CroppedMask, valid: np.ndarray) -> CroppedMask | None:
    """The part of a mask that shows data: the mask itself if all of it does, None if nothing does."""
    y1, x1, y2, x2 = mask.box
    part = mask.pixels & valid[y1:y2, x1:x2]
    return mask if (part == mask.pixels).all() else crop_mask(part, y1, x1)


def _covers(window: Window, box: tuple[int, int, int, int]) -> bool:
    y1, x1, y2, x2 = window.box
    return box[0] >= y1 and box[1] >= x1 and box[2] <= y2 and box[3] <= x2


def labelled_image(
    header: ImageHeader,
    shapes: Sequence[Shape],
    class_ids: Sequence[int],
    class_count: int,
    *,
    name: str,
    pixels: PixelSource | None = None,
) -> LabelledImage:
    """Put an image and its shapes together; `header.path` is the scene that isn't split.

    class_ids: one per shape, negative for regions that training ignores.
    pixels: where the pixels come from, as `ImageReader` calls it; None: from the file `header.path`.
    """
    limits = np.array([header.height, header.width] * 2, dtype=np.int64)
    boxes = np.array([shape.box for shape in shapes], dtype=np.int64).reshape(-1, 4)
    boxes = np.clip(boxes, 0, limits).astype(np.int32)
    ids = np.array(class_ids, dtype=np.int32)
    reader = ImageReader(
        pixels=pixels or FilePixels(header.path),
        name=name,
        height=header.height,
        width=header.width,
        shapes=tuple(shapes),
        boxes=boxes,
        class_ids=ids,
    )
    return LabelledImage(
        name=name,
        path=header.path,
        height=header.height,
        width=header.width,
        bands=header.bands,
        dtype=header.dtype,
        instance_counts=count_class_ids(ids, class_count),
        boxes=boxes,
        class_ids=ids,
        source=header.path,
        pixel_size=header.pixel_size,
        read=reader,
        place=header.place,
        band_labels=header.band_labels,
    )
