"""From labelled images and options to what a run needs: the model's description, samples, a summary.

Everything that can be wrong with the input is found here, before Keras is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, count_instances
from ann.data.samples.augmentation import ZOOM_LIMIT
from ann.data.samples.batches import (
    TrainingBatches,
    ValidationBatches,
    most_instances,
    suggest_max_instances,
)
from ann.data.samples.resize import legacy_scale
from ann.data.samples.samples import SampleSettings
from ann.data.samples.scaling import band_statistics
from ann.errors import AnnError, DatasetError
from ann.training.settings import TrainingSettings
from ann.weights import ModelFile, read_model
from maskrcnn.config import SIZE_MULTIPLE, MaskRCNNConfig

ANCHOR_BASES = (8, 16, 32)  # sides of the smallest anchors to choose from, pixels; 32 is the legacy one
ANCHOR_LEVELS = 5
SMALL_OBJECT_SHARE = 0.1  # that share of the objects may be smaller than the smallest anchors ...
LARGE_OBJECT_SHARE = 0.05  # ... and that share larger than the largest


@dataclass(frozen=True)
class ImageSize:
    """How images become the network's input. `fixed`: all have one size, nothing is resized or padded."""

    min_dim: int
    max_dim: int
    fixed: bool

    @property
    def enlarged_to(self) -> int:
        """Images whose shorter side is below are enlarged to it, pixels; 0: none is."""
        return 0 if self.fixed else self.min_dim

    @property
    def zoom(self) -> float:
        """Samples show their objects at 1 / zoom to zoom times their size."""
        return 1.0 if self.fixed else ZOOM_LIMIT

    def __post_init__(self):
        for name, value in (("images_min_dim", self.min_dim), ("images_max_dim", self.max_dim)):
            if value % SIZE_MULTIPLE:
                lower = value // SIZE_MULTIPLE * SIZE_MULTIPLE
                raise AnnError(
                    f"{name}={value} is not a multiple of {SIZE_MULTIPLE}. "
                    f"Use {lower or SIZE_MULTIPLE} or {lower + SIZE_MULTIPLE}"
                )
        if self.min_dim > self.max_dim:
            raise AnnError(
                f"images_min_dim={self.min_dim} is larger than images_max_dim={self.max_dim}. "
                "Lower the one or raise the other"
            )


def network_input_shape(images: tuple[LabelledImage, ...], size: ImageSize) -> tuple[int, int]:
    """(height, width) of the network's input, pixels.

    Raises:
        DatasetError: with `size.fixed`, images of different sizes or of sides the network can't take.
    """
    if not size.fixed:
        return (size.max_dim, size.max_dim)
    first = images[0]
    for image in images:
        if (image.height, image.width) != (first.height, first.width):
            raise DatasetError(
                f"The flag -n needs images of one size, but {first.path} has {first.height} x {first.width} "
                f"pixels and {image.path} has {image.height} x {image.width}. Leave the flag out"
            )
    if first.height % SIZE_MULTIPLE or first.width % SIZE_MULTIPLE:
        raise DatasetError(
            f"The flag -n needs image sides that are multiples of {SIZE_MULTIPLE}, but the images have "
            f"{first.height} x {first.width} pixels. Leave the flag out"
        )
    return (first.height, first.width)


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

    Scaling, anchors and thresholds are those of the initial model, whose weights were learnt with them.
    From scratch, bands are scaled by the mean and deviation of the images, and the anchors follow the size
    of the objects.

    Raises:
        AnnError: the initial model doesn't fit backbone or classes; `other_classes` (flag -e) allows
            other classes.
    """
    images = (*dataset.images, *dataset.validation)
    pixel_sizes = [image.pixel_size for image in images if image.pixel_size]
    image_shape = network_input_shape(images, size)
    values = {
        "classes": dataset.classes,
        "backbone": backbone,
        "image_shape": image_shape,
        "pixel_size": float(np.median(pixel_sizes)) if pixel_sizes else None,
        "rois_per_image": rois_per_image,
        "max_instances": suggest_max_instances(images, image_shape, min_dim=size.enlarged_to, zoom=size.zoom),
        "proposals_training": training_proposals(image_shape),
        "mini_mask_shape": mini_mask_shape,
    }
    if initial is None:
        mean, scale = dataset.band_statistics or band_statistics(dataset.images)
        scales = anchor_scales(dataset.images, image_shape, size.enlarged_to)
        return MaskRCNNConfig(**values, band_mean=mean, band_scale=scale, anchor_scales=scales)
    check_initial_model(initial, dataset, backbone, other_classes)
    config = _initial_config(initial)
    if config.bands == images[0].bands:
        return replace(config, **values)
    mean, scale = dataset.band_statistics or band_statistics(dataset.images)
    return replace(config, **values, band_mean=mean, band_scale=scale)


def _initial_config(initial):
    """Of a file with a backbone alone, the legacy values with a placeholder for the classes."""
    if initial.described is None and initial.class_count is None:
        return MaskRCNNConfig(classes=("object",), backbone=initial.backbone)
    return initial.config


def check_initial_model(initial: ModelFile, dataset: Dataset, backbone: str, other_classes: bool) -> None:
    """Refuse initial weights of another backbone, or of other classes unless that is known."""
    if initial.backbone != backbone:
        raise AnnError(
            f"The model {initial.path} has the backbone {initial.backbone}, but backbone={backbone} is asked "
            f"for. Set backbone={initial.backbone}"
        )
    if other_classes or initial.class_count is None:
        return
    count = len(dataset.classes) + 1
    if initial.class_count != count:
        raise AnnError(
            f"The model {initial.path} knows {initial.class_count - 1} classes, but {count - 1} are given "
            f"({', '.join(dataset.classes)}). Use the flag -e to train its last layers anew"
        )
    if initial.has_description and initial.config.classes != dataset.classes:
        raise AnnError(
            f"The model {initial.path} knows the classes {', '.join(initial.config.classes)}, in this order, "
            f"but {', '.join(dataset.classes)} are given. Give the same, or use the flag -e to train its "
            "last layers anew"
        )


def training_proposals(image_shape: tuple[int, int]) -> int:
    """Proposals the heads' regions are sampled from: 2000 from 512 x 512 pixels up, fewer on less ground."""
    height, width = image_shape
    return int(np.clip(height * width // 128, 200, MaskRCNNConfig.proposals_training))


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


@dataclass(frozen=True)
class Feed:
    """Batches for training and validation, by number, as `TrainingNetwork` takes them."""

    training_batch: Callable[[int], dict[str, np.ndarray]]
    validation_batch: Callable[[int], dict[str, np.ndarray]]
    validation_steps: int


def validation_settings(size: ImageSize) -> SampleSettings:
    """How validation samples are made: nothing is left to chance."""
    return SampleSettings(min_dim=size.enlarged_to, augment=False)


def make_feed(
    dataset: Dataset,
    config: MaskRCNNConfig,
    size: ImageSize,
    settings: TrainingSettings,
    anchors: int,
    *,
    part: slice = slice(None),
) -> Feed:
    """Batches of samples and of the noise that decides which anchors and regions are trained on.

    part: the rows of each batch that are wanted, the share of one of several processes.

    The noise of a sample follows from the seed and the sample's number: it is the same however many
    devices share a batch.
    """
    samples = SampleSettings(
        min_dim=size.enlarged_to,
        augment=settings.augment,
        zoom=not size.fixed,
        balance=settings.balance,
    )
    batches = TrainingBatches(
        dataset.images, config, samples, batch_size=settings.batch_size, seed=settings.seed
    )

    def with_noise(batch, number, purpose):
        rows = range(number * settings.batch_size, (number + 1) * settings.batch_size)[part]
        sources = [np.random.default_rng([settings.seed, purpose, row]) for row in rows]
        batch["anchor_noise"] = np.stack([source.random(anchors, np.float32) for source in sources])
        batch["roi_noise"] = np.stack(
            [source.random(config.roi_candidates, np.float32) for source in sources]
        )
        return batch

    if not dataset.validation or not settings.validation_steps:
        return Feed(lambda step: with_noise(batches.batch(step, part), step, 3), lambda number: {}, 0)
    checks = ValidationBatches(
        dataset.validation,
        config,
        validation_settings(size),
        batch_size=settings.batch_size,
        limit=settings.validation_steps,
    )
    return Feed(
        lambda step: with_noise(batches.batch(step, part), step, 3),
        lambda number: with_noise(checks.batch(number, part), number, 4),
        len(checks),
    )


def prepare_logs(settings: TrainingSettings, *, overwrite: bool, resuming: bool) -> None:
    """Make the logs directory and see that models can be written to it.

    Raises:
        AnnError: it can't be written to, or files of a run of this name are there already.
    """
    try:
        settings.logs.mkdir(parents=True, exist_ok=True)
        longest = settings.model_path(settings.epochs).name  # of the names that will be written
        probe = settings.logs / f".{longest}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AnnError(
            f"The logs directory {settings.logs} can't be written to ({error.strerror}). "
            "Choose another one, or change its permissions"
        ) from error
    if overwrite or resuming:
        return
    found = settings.files_found()
    if found:
        names = ", ".join(path.name for path in found[:3]) + (", ..." if len(found) > 3 else "")
        raise AnnError(
            f"There are files of the name {settings.name} in {settings.logs} already ({names}). "
            "Choose another name, use --overwrite, or go on from the last model with model="
        )


def epoch_to_resume(settings: TrainingSettings, model_path: Path | None) -> int:
    """The epoch after which an interrupted run goes on, 0 for a new run.

    A run goes on if the initial model is the last one that this run saved, and epochs are left.
    """
    if model_path is None or not settings.state_path.exists():
        return 0
    epoch = int(read_model(settings.state_path).extra.get("epoch", 0))
    last = {settings.model_path(epoch).resolve(), settings.state_path.resolve()}
    return epoch if model_path.resolve() in last and epoch < settings.epochs else 0


def summarise(dataset: Dataset, config: MaskRCNNConfig, size: ImageSize) -> str:
    """A few lines about the data: images, instances per class, more instances than the network has places."""
    lines = [f"{len(dataset.images)} images to train on, {len(dataset.validation)} to validate with"]
    classes = len(dataset.classes)
    parts = [count_instances(part, classes) for part in (dataset.images, dataset.validation)]
    for name, training, validation in zip(dataset.classes, *parts, strict=True):
        lines.append(f"  {name}: {training} instances to train on, {validation} to validate with")
    most = most_instances(dataset.images, config.image_shape, min_dim=size.enlarged_to, zoom=size.zoom)
    if most > config.max_instances:
        lines.append(
            f"Up to {most} instances are in view at a time, but {config.max_instances} at most are trained "
            "on. Of more, the smallest are left out, and the ground where they are is not learnt as "
            "background. A lower images_max_dim shows fewer at a time"
        )
    return "\n".join(lines)


def check_name(name: str) -> None:
    """Refuse a name that would lead out of the logs directory."""
    if name in ("", "..") or Path(name).name != name:
        raise AnnError(f"name={name} can't be part of a file name. Use letters, digits, - and _")
