"""From labelled images and options to what a run needs: the model's description, samples, a summary.

Everything that can be wrong with the input is found here, before Keras is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ann.config import ModelConfig
from ann.data.band_labels import common_labels
from ann.data.dataset import Dataset, count_instances
from ann.data.samples.batches import TrainingBatches, ValidationBatches
from ann.data.samples.samples import LabelKind, SampleSettings
from ann.data.samples.scaling import band_statistics
from ann.data.samples.values import IMPOSSIBLE
from ann.errors import AnnError, DatasetError
from ann.task import Feed
from ann.training.image_size import ImageSize, network_input_shape
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from ann.weights import ModelFile, read_model
from ann.weights.kind import ModelKind


def shared_values(dataset: Dataset, size: ImageSize, backbone: str) -> dict:
    """What a model's description has from the images, whatever the network, but for the scaling of bands.

    Raises:
        DatasetError: see `network_input_shape`.
    """
    images = (*dataset.images, *dataset.validation)
    labels = common_labels(image.band_labels for image in images)
    pixel_sizes = [image.pixel_size for image in images if image.pixel_size]
    return {
        "classes": dataset.classes,
        "backbone": backbone,
        "image_shape": network_input_shape(images, size),
        "pixel_size": float(np.median(pixel_sizes)) if pixel_sizes else None,
        **({"band_labels": labels} if labels else {}),  # else those of an initial model stay
    }


def band_scaling(dataset: Dataset) -> dict:
    """Mean, deviation and labels of bands that no initial model knows, as fields of a model's description.

    Raises:
        DatasetError: see `band_statistics`; or what the data knows comes from values that stood for missing
            data.
    """
    mean, deviation = dataset.band_statistics or band_statistics(dataset.images)
    for band, values in enumerate(zip(mean, deviation, strict=True), start=1):
        if not all(abs(value) < IMPOSSIBLE for value in values):
            raise DatasetError(
                f"The statistics that came with the training data say that band {band} has the mean "
                f"{values[0]:.4g} and the deviation {values[1]:.4g}: a value that stands for missing data "
                "was counted. Declare it in the images, and write the shards again"
            )
    labels = common_labels(image.band_labels for image in dataset.images)
    return {"band_mean": mean, "band_scale": deviation, "band_labels": labels}


def check_initial_model(initial: ModelFile, dataset: Dataset, backbone: str, other_classes: bool) -> None:
    """Refuse initial weights of another backbone, of other classes unless that is known, or of bands in
    another order.
    """
    if initial.backbone != backbone:
        option = initial.kind.config.backbone_option
        raise AnnError(
            f"The model {initial.path} has the {option} {initial.backbone}, but {option}={backbone} is asked "
            f"for. Set {option}={initial.backbone}"
        )
    labels = common_labels(image.band_labels for image in dataset.images)
    learnt = initial.config.band_labels if initial.has_description else ()
    if common_labels([labels, learnt]) != labels and set(labels) == set(learnt):
        raise AnnError(
            f"The model {initial.path} was trained on the bands {', '.join(learnt)}, in this order, but "
            f"{', '.join(labels)} are given. Give them in the model's order"
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


def validation_settings(size: ImageSize) -> SampleSettings:
    """How validation samples are made: nothing is left to chance."""
    return SampleSettings(min_dim=size.enlarged_to, max_dim=size.shrunk_to, augment=False)


def feed_of(job: Job, kind: LabelKind, part: slice) -> Feed:
    """The batches of a job with labels of one kind; part: the rows of each batch that are wanted."""
    dataset, settings, size = job.dataset, job.settings, job.size
    samples = SampleSettings(
        min_dim=size.enlarged_to,
        max_dim=size.shrunk_to,
        augment=settings.augment,
        zoom=not size.fixed,
        balance=settings.balance,
    )
    batches = TrainingBatches(
        dataset.images, job.config, samples, batch_size=settings.batch_size, seed=settings.seed, kind=kind
    )
    checks = validation_batches(job, job.config, kind)
    return Feed(
        lambda step: batches.batch(step, part),
        lambda number: checks.batch(number, part),
        len(checks) if checks else 0,
    )


def validation_batches(job: Job, config: ModelConfig, kind: LabelKind) -> ValidationBatches | None:
    """The windows that the validation loss and the scores are measured on; None if there are none."""
    settings = job.settings
    if not job.dataset.validation or not settings.validation_steps:
        return None
    return ValidationBatches(
        job.dataset.validation,
        config,
        validation_settings(job.size),
        batch_size=settings.batch_size,
        limit=settings.validation_steps,
        kind=kind,
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


def epoch_to_resume(settings: TrainingSettings, model_path: Path | None, kind: ModelKind) -> int:
    """The epoch after which an interrupted run goes on, 0 for a new run.

    A run goes on if the initial model is the last one that this run saved, and epochs are left.
    """
    if model_path is None or not settings.state_path.exists():
        return 0
    epoch = int(read_model(settings.state_path, kind).extra.get("epoch", 0))
    last = {settings.model_path(epoch).resolve(), settings.state_path.resolve()}
    return epoch if model_path.resolve() in last and epoch < settings.epochs else 0


def summarise(dataset: Dataset) -> str:
    """A few lines about the data: images, and what is labelled with each class."""
    lines = [f"{len(dataset.images)} images to train on, {len(dataset.validation)} to validate with"]
    classes = len(dataset.classes)
    parts = [count_instances(part, classes) for part in (dataset.images, dataset.validation)]
    for name, training, validation in zip(dataset.classes, *parts, strict=True):
        lines.append(f"  {name}: {training} {dataset.counted} to train on, {validation} to validate with")
    return "\n".join(lines)


def check_name(name: str) -> None:
    """Refuse a name that would lead out of the logs directory."""
    if name in ("", "..") or Path(name).name != name:
        raise AnnError(f"name={name} can't be part of a file name. Use letters, digits, - and _")
