"""Detect in whole images, as i.ann.maskrcnn.detect does: tiles, merging, one object per pixel."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

from ann.data.dataset import LabelledImage
from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.samples.samples import SampleSettings
from ann.inference.labelled_scene import LabelledScene
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.pipeline import DetectionSettings, FinishedInstance, detect_scene
from maskrcnn.scores.results import ImageResult, make_objects
from maskrcnn.scores.windows import CONFIDENCE, Detector


def detect_image(
    detector: Detector, image: LabelledImage, config: MaskRCNNConfig, *, batch_size: int = 1
) -> ImageResult:
    """Labels and detections of a whole image. Boxes are those around the masks.

    Memory: the image and a number per pixel. An object of which hardly anything lies inside of the image is a
    region in which nothing is scored, as in training.

    Raises:
        SceneError, DatasetError: the image can't be read.
    """
    tile_shape = config.tile_for(image.height, image.width)
    settings = DetectionSettings.for_model(
        config,
        tile_shape=tile_shape,
        overlap=min(tile_shape) // 8,
        confidence=CONFIDENCE,
        batch_size=batch_size,
    )
    ids = np.zeros((image.height, image.width), np.int32)
    instances: list[FinishedInstance] = []
    for block in detect_scene(
        LabelledScene(image), functools.partial(detector, confidence=CONFIDENCE), settings
    ):
        ids[block.row : block.row + len(block.instance_ids)] = block.instance_ids
        instances.extend(block.instances)
    masks = _masks(ids)
    example = image.read(None)
    class_ids = example.class_ids
    if example.visible is not None:
        hidden = example.visible < SampleSettings.visible_share
        class_ids = np.where(hidden, -np.abs(class_ids), class_ids)
    return ImageResult(
        name=image.name,
        height=image.height,
        width=image.width,
        truth=make_objects(example.masks, class_ids, image.height, image.width),
        found=make_objects(
            [masks[one.id] for one in instances],
            [one.class_id for one in instances],
            image.height,
            image.width,
            scores=[one.score for one in instances],
        ),
    )


def _masks(ids: np.ndarray) -> dict[int, CroppedMask | None]:
    """The mask of each number above 0 in (H, W) int32."""
    masks = {}
    for number, place in enumerate(ndimage.find_objects(ids), 1):
        if place is not None:
            rows, columns = place
            masks[number] = crop_mask(ids[place] == number, rows.start, columns.start)
    return masks
