"""What the module i.ann.unet.train does once its options are parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grass.script as gs

from ann.data.dataset import Dataset
from ann.data.outlines.label_values import parse_label_values
from ann.data.readers.pairs import find_pairs, read_pairs
from ann.data.storage import is_uri
from ann.data.text import split_names
from ann.errors import AnnError
from ann.grass import training
from ann.grass.label_raster import open_label_raster
from ann.grass.training import Initial, TrainModule
from ann.multiples import check_multiple
from ann.training.image_size import ImageSize
from ann.training.preparation import summarise
from unet.config import UNetConfig, stride_of
from unet.model_file import read_model
from unet.preparation import describe_model
from unet.task import TASK


def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Train as the options of i.ann.unet.train say; False if the run was interrupted.

    Raises:
        AnnError: bad input, before any work; or the training failed.
    """
    return training.run(MODULE, options, flags)


def _open_labels(options: Mapping[str, str], classes: Sequence[str]) -> Dataset | None:
    """Label rasters as files or as a map; None for labels of objects."""
    folder = options["training_dataset"]
    if options["label_raster"]:
        _refuse(options, ("ignore", "class_values", "class_column"), "the categories of label_raster=")
        return open_label_raster(options, classes)
    pairs = find_pairs(folder) if folder and not is_uri(folder) else []
    if not pairs:
        _refuse(options, ("ignore",), "labels of objects")
        return None
    _refuse(options, ("class_column",), "pairs of images and label rasters")
    meanings = dict(_meaning(text) for text in split_names(options["class_values"]))
    values = parse_label_values(meanings, split_names(options["ignore"]), classes)
    return read_pairs(folder, pairs, classes, values, lambda done, total: gs.percent(done, total, 5))


def _refuse(options: Mapping[str, str], names: Sequence[str], labels: str) -> None:
    """Raise AnnError for options that such labels can't be used with."""
    if given := next((name for name in names if options[name]), None):
        raise AnnError(f"{given}= can't be used with {labels}. Leave it out")


def _meaning(text: str) -> tuple[str, str]:
    value, separator, name = text.partition(":")
    if not separator:
        raise AnnError(f"class_values={text} lacks a colon. Give value:class, e.g. 255:road or #6EC1E4:road")
    return value.strip(), name.strip()


def _image_size(options: Mapping[str, str], flags: Mapping[str, bool]) -> ImageSize:
    side = int(options["tile_size"])
    stride = stride_of(options["architecture"])
    check_multiple("tile_size", side, stride)
    return ImageSize(0, side, False, multiple=stride)


def _describe(dataset: Dataset, size: ImageSize, options: Mapping[str, str], initial: Initial) -> UNetConfig:
    return describe_model(
        dataset,
        size,
        architecture=options["architecture"],
        loss=options["loss"],
        weighted=options["class_weights"] == "frequency",
        initial=initial.model,
        other_classes=initial.other_classes,
    )


MODULE = TrainModule(
    task=TASK,
    describe=_describe,
    open_model=lambda path, options: read_model(path),
    image_size=_image_size,
    summary=lambda job: summarise(job.dataset),
    train_batch_norm=lambda flags, staged: True,
    backbone=lambda options: options["architecture"].removeprefix("unet_"),
    open_labels=_open_labels,
)
