"""What the module i.ann.maskrcnn.train does once its options are parsed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ann.data.dataset import Dataset
from ann.grass import training
from ann.grass.training import Initial, TrainModule
from ann.training.image_size import ImageSize
from ann.weights import ModelFile
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.foreign import open_model, parse_settings
from maskrcnn.preparation import describe_model, summary
from maskrcnn.task import TASK


def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Train as the options of i.ann.maskrcnn.train say; False if the run was interrupted.

    Raises:
        AnnError: bad input, before any work; or the training failed.
    """
    return training.run(MODULE, options, flags)


def _describe(
    dataset: Dataset, size: ImageSize, options: Mapping[str, str], initial: Initial
) -> MaskRCNNConfig:
    mini_mask = options["mini_mask_size"]
    return describe_model(
        dataset,
        size,
        backbone=options["backbone"],
        rois_per_image=int(options["rois_per_image"]),
        mini_mask_shape=tuple(map(int, mini_mask.split(","))) if mini_mask else None,
        initial=initial.model,
        other_classes=initial.other_classes,
    )


def _open_model(path: Path, options: Mapping[str, str]) -> ModelFile:
    return open_model(path, parse_settings([text for text in options["model_settings"].split(",") if text]))


MODULE = TrainModule(
    task=TASK,
    describe=_describe,
    open_model=_open_model,
    image_size=lambda options, flags: ImageSize(
        int(options["images_min_dim"]), int(options["images_max_dim"]), flags["n"]
    ),
    summary=summary,
    train_batch_norm=lambda flags, staged: flags["b"],
    backbone=lambda options: options["backbone"],
)
