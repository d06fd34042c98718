"""What the module i.ann.classifier.train does once its options are parsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ann.data.blocks import join_blocks
from ann.data.class_split import set_apart_by_class
from ann.data.dataset import IMAGE_LABELS, Dataset
from ann.data.duplicates import join_duplicates
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.class_lists import is_class_list, read_class_list
from ann.data.readers.image_classes import open_class_files
from ann.data.readers.shards import is_shards, read_manifest, read_shards
from ann.data.samples.augmentation import ZOOM_LIMIT
from ann.data.samples.values import check_types
from ann.data.storage import Folder
from ann.errors import AnnError
from ann.grass import training
from ann.grass.class_labels import open_feature_classes
from ann.grass.options import positive
from ann.grass.progress import Percent
from ann.grass.region import metres_per_map_unit
from ann.grass.training import Initial, TrainModule
from ann.multiples import check_multiple
from ann.training.image_size import ImageSize
from ann.training.preparation import summarise
from classifier.config import SMALLEST_SIDE, STRIDE, ClassifierConfig
from classifier.model_file import read_model
from classifier.preparation import describe_model
from classifier.task import TASK


def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Train as the options of i.ann.classifier.train say; False if the run was interrupted.

    Raises:
        AnnError: bad input, before any work; or the training failed.
    """
    return training.run(MODULE, options, flags)


def _open_labels(options: Mapping[str, str], classes: Sequence[str]) -> Dataset:
    """Images with a class each: files, shards, or the chips of features."""
    side = int(options["image_size"])
    longest = math.ceil(side * ZOOM_LIMIT)
    if options["training_dataset"] and is_shards(options["training_dataset"]):
        location = options["training_dataset"]
        names = classes or read_manifest(Folder.of(location))["classes"]
        dataset = read_shards(location, names)
    elif options["labels"]:
        dataset = open_feature_classes(options, classes, side, longest)
    else:
        dataset = _open_files(options, classes, longest)
    if len(dataset.classes) < 2:
        raise AnnError(
            f"There is one class, {dataset.classes[0]}. To tell classes apart two are needed at least"
        )
    return dataset


def _open_files(options: Mapping[str, str], classes: Sequence[str], longest: int) -> Dataset:
    """A folder for each class, or a table of images."""
    path, scenes = options["training_dataset"], options["scenes"]
    notes: list[str] = []
    if is_class_list(path):
        names, files = read_class_list(path, classes, options["class_column"] or None)
        if scenes == "folder":
            files = [replace(file, source=file.source or str(file.path.parent)) for file in files]
    else:
        names, files, notes = find_class_files(path, classes, by_folder=scenes == "folder")
    images = open_class_files(files, len(names), longest)
    check_types(images)
    dataset = Dataset(classes=names, images=images, labels=IMAGE_LABELS, notes=tuple(notes))
    if scenes == "block":
        side = positive(options["block_size"], "block_size")
        if side is None:
            raise AnnError(
                "scenes=block needs block_size=, the side of the squares in map units of the images"
            )
        dataset = join_blocks(dataset, side)
    return join_duplicates(dataset, Percent())


def _chip_size(options: Mapping[str, str]) -> float | None:
    """As `ClassifierConfig` has it."""
    side = positive(options["chip_size"], "chip_size")
    return None if side is None else side * (metres_per_map_unit() or 1.0)


def _image_size(options: Mapping[str, str], flags: Mapping[str, bool]) -> ImageSize:
    side, backbone = int(options["image_size"]), options["backbone"]
    check_multiple("image_size", side, STRIDE)
    if side < SMALLEST_SIDE.get(backbone, STRIDE):
        raise AnnError(
            f"image_size={side} is too small for backbone={backbone}. Try {SMALLEST_SIDE[backbone]}"
        )
    return ImageSize(side, side, False, multiple=STRIDE, whole=True)


def _describe(
    dataset: Dataset, size: ImageSize, options: Mapping[str, str], initial: Initial
) -> ClassifierConfig:
    smoothing = float(options["label_smoothing"])
    if not 0 <= smoothing < 1:
        raise AnnError(f"label_smoothing={smoothing:g} is not from 0 to below 1")
    return describe_model(
        dataset,
        size,
        backbone=options["backbone"],
        label_smoothing=smoothing,
        initial=initial.model,
        other_classes=initial.other_classes,
        imagenet=initial.imagenet,
        chip_size=_chip_size(options),
        inside=options["chip"] == "inside",
    )


MODULE = TrainModule(
    task=TASK,
    describe=_describe,
    open_model=lambda path, options: read_model(path),
    image_size=_image_size,
    summary=lambda job: summarise(job.dataset),
    # statistics that initial weights came with are better than those of a few images of few classes
    train_batch_norm=lambda flags, staged: not staged,
    backbone=lambda options: options["backbone"],
    open_labels=_open_labels,
    at_once=(),
    set_apart=set_apart_by_class,
)
