"""From labelled images and options to what a run of Mask R-CNN needs: the model's description, and
batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage
from ann.data.samples.resize import legacy_scale
from ann.data.targets.instances import INSTANCES, most_instances, suggest_max_instances
from ann.task import Feed
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.preparation import (
    band_scaling,
    check_initial_model,
    feed_of,
    shared_values,
    summarise,
)
from ann.weights import ModelFile
from maskrcnn.config import TRAINED_DETECTION, MaskRCNNConfig
from maskrcnn.network.anchors import anchor_count

ANCHOR_BASES = (8, 16, 32)  # sides of the smallest anchors to choose from, pixels; 32 is the legacy one
ANCHOR_LEVELS = 5
TILE_SIDES = (1024, 768, 512)  # pixels
PHOTOGRAPH = 57.6  # deviation of the bytes of a band of a photograph, the mean of ImageNet's three
SMALL_OBJECT_SHARE = 0.1  # that share of the objects may be smaller than the smallest anchors ...
LARGE_OBJECT_SHARE = 0.05  # ... and that share larger than the largest


def describe_model(
    dataset: Dataset,
    size: ImageSize,
    *,
    backbone: str,
    rois_per_image: int,
    mini_mask_shape: tuple[int, int] | None,
    initial: ModelFile | None,
    other_classes: bool,
) -> MaskRCNNConfig:
    """The description of the model to train.

    Scaling, anchors and thresholds of proposals are those of the initial model, whose weights were learnt
    with them. From scratch, bands are scaled by the mean and deviation of the images, and the anchors follow
    the size of the objects. How detections are chosen is that of `TRAINED_DETECTION`.

    Raises:
        AnnError: the initial model doesn't fit backbone or classes; `other_classes` (flag -e) allows
            other classes.
    """
    images = (*dataset.images, *dataset.validation)
    values = shared_values(dataset, size, backbone)
    image_shape = values["image_shape"]
    values |= {
        "rois_per_image": rois_per_image,
        "max_instances": suggest_max_instances(images, image_shape, min_dim=size.enlarged_to, zoom=size.zoom),
        "proposals_training": training_proposals(image_shape),
        "mini_mask_shape": mini_mask_shape,
        "tile_shape": tile_shape(dataset.images, image_shape, size.enlarged_to),
        **TRAINED_DETECTION,
    }
    if initial is None:
        scales = anchor_scales(dataset.images, image_shape, size.enlarged_to)
        return MaskRCNNConfig(**(values | band_scaling(dataset)), anchor_scales=scales)
    check_initial_model(initial, dataset, backbone, other_classes)
    config = _initial_config(initial)
    # images are trained on in the size that they have, and the model is used as it was trained
    config = replace(config, variant=config.variant.without_resizing())
    if config.bands != images[0].bands:
        values |= band_scaling(dataset)
        if config.variant.pixels:  # of another program
            values["band_scale"] = scale_as_the_model(values["band_scale"], config)
    return replace(config, **values)


def scale_as_the_model(deviations: tuple[float, ...], config: MaskRCNNConfig) -> tuple[float, ...]:
    """Scales of other bands than the model's, so that its weights see numbers as large as they did.

    What they saw is taken for photographs, whose bytes deviate by PHOTOGRAPH from their mean.
    """
    seen = PHOTOGRAPH / float(np.mean(config.band_scale))
    return tuple(deviation / seen for deviation in deviations)


def _initial_config(initial):
    """Of a file with a backbone alone, the legacy values with a placeholder for the classes."""
    if initial.described is None and initial.class_count is None:
        return MaskRCNNConfig(classes=("object",), backbone=initial.backbone)
    return initial.config


def training_proposals(image_shape: tuple[int, int]) -> int:
    """Proposals the heads' regions are sampled from: 2000 from 512 x 512 pixels up, fewer on less ground."""
    height, width = image_shape
    return int(np.clip(height * width // 128, 200, MaskRCNNConfig.proposals_training))


def tile_shape(
    images: Sequence[LabelledImage], image_shape: tuple[int, int], min_dim: int
) -> tuple[int, int] | None:
    """Tiles to detect in, larger than what the network is trained on where that is small; None: no larger.

    Most objects lie at a border of small tiles, which costs accuracy, and small tiles share more ground (see
    docs/benchmarks.md). No larger than that half of the detections a tile can have would do for the densest
    ground in the images; of an image smaller than the tile, its density counts.
    """
    for side in TILE_SIDES:
        if side > max(image_shape) and all(
            most_instances([image], (side, side), min_dim=min_dim, zoom=1.0)
            * side**2
            / (min(side, image.height) * min(side, image.width))
            <= MaskRCNNConfig.max_detections / 2
            for image in images
        ):
            return side, side
    return None


def anchor_scales(
    images: Sequence[LabelledImage], image_shape: tuple[int, int], min_dim: int
) -> tuple[int, ...]:
    """Sides of the anchors of each pyramid level that suit the objects of the images, pixels.

    All objects but the smallest tenth are at least as large as the smallest anchors, all but the largest
    twentieth at most as large as the largest; each level is at least twice as large as the one before.
    Objects count at the size that the network sees: enlarged with images whose shorter side is below
    `min_dim`, and cut to `image_shape`.
    """
    sides = [np.zeros(0)]
    for image in images:
        boxes = image.boxes[image.class_ids > 0].astype(float)
        scale = legacy_scale(image.height, image.width, min_dim, None)
        lengths = np.minimum((boxes[:, 2:] - boxes[:, :2]) * scale, image_shape)
        sides.append(np.sqrt(np.prod(lengths, axis=1)))
    sides = np.concatenate(sides)
    if not len(sides):
        return tuple(ANCHOR_BASES[-1] * 2**level for level in range(ANCHOR_LEVELS))
    small, large = np.quantile(sides, (SMALL_OBJECT_SHARE, 1 - LARGE_OBJECT_SHARE))
    base = max((base for base in ANCHOR_BASES if base <= small), default=ANCHOR_BASES[0])
    if base * 2 ** (ANCHOR_LEVELS - 1) < large:
        base = max(small, base)
    step = max(2.0, (large / base) ** (1 / (ANCHOR_LEVELS - 1)))
    return tuple(round(base * step**level) for level in range(ANCHOR_LEVELS))


def make_feed(job: Job, part: slice) -> Feed:
    """Batches of samples and of the noise that decides which anchors and regions are trained on.

    part: the rows of each batch that are wanted, the share of one of several processes.

    The noise of a sample follows from the seed and the sample's number: it is the same however many
    devices share a batch.
    """
    config, settings = job.config, job.settings
    anchors = anchor_count(config.image_shape, config.anchor_ratios)

    def with_noise(batch, number, purpose):
        rows = range(number * settings.batch_size, (number + 1) * settings.batch_size)[part]
        sources = [np.random.default_rng([settings.seed, purpose, row]) for row in rows]
        batch["anchor_noise"] = np.stack([source.random(anchors, np.float32) for source in sources])
        batch["roi_noise"] = np.stack(
            [source.random(config.roi_candidates, np.float32) for source in sources]
        )
        return batch

    feed = feed_of(job, INSTANCES, part)
    return Feed(
        lambda step: with_noise(feed.training_batch(step), step, 3),
        lambda number: with_noise(feed.validation_batch(number), number, 4),
        feed.validation_steps,
    )


def summary(job: Job) -> str:
    """A few lines about the data, also about more instances than the network has places."""
    text = summarise(job.dataset)
    config, size = job.config, job.size
    most = most_instances(job.dataset.images, config.image_shape, min_dim=size.enlarged_to, zoom=size.zoom)
    if most <= config.max_instances:
        return text
    return text + (
        f"\nUp to {most} instances are in view at a time, but {config.max_instances} at most are trained on. "
        "Of more, the smallest are left out, and the ground where they are is not learnt as background. A "
        "lower images_max_dim shows fewer at a time"
    )
