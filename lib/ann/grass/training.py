"""What the modules that train do once their options are parsed: checks, then the training.

What differs between them comes in as a `TrainModule`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grass.script as gs

from ann.backbones.names import TRAINED_AT_ONCE
from ann.cluster.connection import Cluster, connect
from ann.cluster.prepare import write_dataset
from ann.cluster.training import train_on_cluster
from ann.config import MODULES, ModelConfig
from ann.data.dataset import CELL_LABELS, IMAGE_LABELS, OBJECT_LABELS, Dataset, LabelledImage, WindowReader
from ann.data.readers.class_column import ClassValues
from ann.data.readers.formats import open_dataset
from ann.data.samples.values import LOOKED_AT, check_pixel_sizes, check_values
from ann.data.split import SetApart, hold_out, split_dataset
from ann.data.storage import is_uri
from ann.data.text import split_names
from ann.errors import AnnError, DatasetError
from ann.grass.labels import open_maps
from ann.grass.modules import module_errors
from ann.grass.options import positive
from ann.task import Task
from ann.training import preparation
from ann.training.advice import advice, usual_steps
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from ann.training.worker import train
from ann.weights import ModelFile, read_model

TEST_SHARE = 0.1  # of the images, left out by the flag -s where nothing else is asked for
TILE_FACTOR = 2  # the side of tiles in shards, in squares that the network sees: leaves windows room to move
SHARDS_LOOKED_AT = 100  # tiles
VALIDATION_SHARE = 0.25  # of the images that are used
LEARNT_BY = {
    OBJECT_LABELS: "i.ann.maskrcnn.train or i.ann.unet.train",
    CELL_LABELS: "i.ann.unet.train",
    IMAGE_LABELS: "i.ann.classifier.train",
}

Options, Flags = Mapping[str, str], Mapping[str, bool]


@dataclass(frozen=True, kw_only=True)
class Initial:
    """What the description of a model starts from.

    model: None from scratch or ImageNet weights (flag -i); flag -e: other_classes.
    """

    model: ModelFile | None
    other_classes: bool
    imagenet: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainModule:
    """What a module that trains has of its own.

    describe: the description of the model to train, from the data and the options.
    open_model: the model that model= names. image_size: see `ImageSize`.
    summary: a few lines about a job's data.
    train_batch_norm: whether normalisations are trained, by the flags and whether training goes in stages.
    open_labels: another way to read what the options name; it returns None where `open_labels` of this file
        is right.
    at_once: backbones whose ImageNet weights are fitted without stages.
    set_apart: how images for validation and for the test are chosen, see `split`.
    """

    task: Task
    describe: Callable[[Dataset, ImageSize, Options, Initial], ModelConfig]
    open_model: Callable[[Path, Options], ModelFile]
    image_size: Callable[[Options, Flags], ImageSize]
    summary: Callable[[Job], str]
    train_batch_norm: Callable[[Flags, bool], bool]
    backbone: Callable[[Options], str]
    open_labels: Callable[[Options, Sequence[str]], Dataset | None] = lambda options, classes: None
    at_once: Sequence[str] = TRAINED_AT_ONCE
    set_apart: SetApart | None = None


class Console:
    """Tells the user about the progress."""

    def message(self, text: str) -> None:
        gs.message(text)

    def percent(self, done: int, total: int) -> None:
        gs.percent(done, total, 1)


@module_errors()
def run(module: TrainModule, options: Options, flags: Flags) -> bool:
    """Train as the options of a module say; False if the run was interrupted.

    Raises:
        AnnError: bad input, before any work; or the training failed.
    """
    with ExitStack() as stack:
        cluster = None
        if options["cluster"]:
            options = with_absolute_paths(options)
            cluster = stack.enter_context(connect(options["cluster"], ["pyarrow"]))
            gs.message(cluster.describe())
        if options.get("shards"):
            write_shards(module, options, flags, cluster)
            return True
        job = check_job(module, options, flags)
        gs.message(module.summary(job))
        if text := advice(job.settings):
            gs.message(text)
        result = train_on_cluster(job, Console(), cluster) if cluster else train(job, Console())
    settings = job.settings
    if not result.last_epoch:
        gs.warning("Interrupted before the first epoch was complete: no model was saved")
        return False
    last = settings.model_path(result.last_epoch)
    if result.interrupted:
        gs.warning(f"Interrupted. The last model is {last}; model={last} goes on from there")
        return False
    best = f"the best {settings.best_path} (epoch {result.best_epoch})"
    why = f", as {result.ended_early}" if result.ended_early else ""
    gs.message(f"Finished{why}. The last model is {last}, {best}, the report {settings.report_path}")
    return True


def write_shards(module: TrainModule, options: Options, flags: Flags, cluster: Cluster | None) -> None:
    """Write the training dataset as shards, on this machine or on all nodes of a cluster."""
    size = module.image_size(options, flags)
    dataset = read_labels(module, options, flags)
    for name, count in zip(dataset.classes, dataset.instance_counts, strict=True):
        gs.message(f"  {name}: {count} {dataset.counted}")
    manifest = write_dataset(
        dataset,
        options["shards"],
        side=TILE_FACTOR * size.max_dim,
        validation_share=validation_share(options) if int(options["validation_steps"]) else 0.0,
        overwrite=gs.overwrite(),
        cluster=cluster,
        report=lambda done, total: gs.percent(done, total, 1),
        seed=int(options["seed"]),
    )
    written = sum(shard["bytes"] for shard in manifest["shards"])
    gs.message(
        f"Wrote {manifest['tiles']} tiles in {len(manifest['shards'])} shards ({written / 1e6:.1f} MB). "
        f"Train on them with training_dataset={options['shards']}"
    )


def with_absolute_paths(options: Options) -> dict[str, str]:
    """The options as they are understood on other machines, whatever directory work is done in there."""
    paths = ("training_dataset", "model", "logs", "shards")
    given = {name: options[name] for name in paths if options.get(name) and not is_uri(options[name])}
    return dict(options) | {name: os.path.abspath(path) for name, path in given.items()}


def check_job(module: TrainModule, options: Options, flags: Flags) -> Job:
    """Turn options into a job.

    Raises:
        AnnError: the first thing that is wrong with them or the files they name.
    """
    model_path = Path(options["model"]) if options["model"] else None
    settings = TrainingSettings(
        name=options["name"],
        prefix=module.task.prefix,
        logs=Path(options["logs"]),
        epochs=int(options["epochs"]),
        steps_per_epoch=int(options["steps_per_epoch"] or 0),
        validation_steps=int(options["validation_steps"]),
        images_per_device=int(options["images_per_gpu"]),
        device_count=int(options["gpu_count"]),
        staged=model_path is not None or (flags["i"] and module.backbone(options) not in module.at_once),
        learning_rate=positive(options["learning_rate"], "learning_rate"),
        learning_rate_scaling=options["learning_rate_scaling"],
        patience=int(options["patience"]),
        minutes=positive(options["minutes"], "minutes") or 0.0,
        precision=options["precision"],
        augment=not flags["a"],
        balance=flags["c"],
        seed=int(options["seed"]),
        **({"workers": int(options["nprocs"])} if options.get("nprocs") else {}),
    )
    size = module.image_size(options, flags)
    test_share(options)  # before the images are looked at
    preparation.check_name(settings.name)
    initial = open_initial_model(module, model_path, options) if model_path else None
    epoch = 0 if flags["e"] else preparation.epoch_to_resume(settings, model_path, module.task.kind)
    if epoch:  # a run from scratch stays one, although it is resumed through model=
        initial = read_model(settings.state_path, module.task.kind)
        settings = replace(settings, staged=bool(initial.extra["staged"]))
    settings = replace(settings, train_batch_norm=module.train_batch_norm(flags, settings.staged))
    if flags["i"]:
        check_imagenet(module.backbone(options))
    preparation.prepare_logs(settings, overwrite=gs.overwrite(), resuming=epoch > 0)
    dataset, held_out = open_images(module, options, flags, settings)
    if not settings.steps_per_epoch:  # every image once
        steps = -(-len(dataset.images) // settings.batch_size)
        settings = replace(settings, steps_per_epoch=steps)
    start = Initial(model=initial, other_classes=flags["e"], imagenet=flags["i"])
    config = module.describe(dataset, size, options, start)
    steps = usual_steps(dataset.images, config.image_shape, settings.batch_size)
    settings = replace(settings, usual_steps=steps)
    return Job(
        task=module.task,
        dataset=dataset,
        config=config,
        size=size,
        settings=settings,
        initial=initial,
        skip_heads=flags["e"],
        imagenet=flags["i"],
        epoch=epoch,
        held_out=held_out,
        options=name_settings(options, flags),
    )


def open_initial_model(module: TrainModule, path: Path, options: Options) -> ModelFile:
    """The model to start from."""
    model = module.open_model(path, options)
    for note in model.notes:
        gs.message(note)
    return model


def check_imagenet(backbone: str) -> None:
    """See that the ImageNet weights are there, or download them; imports Keras.

    Raises:
        AnnError: they can't be had.
    """
    from ann.backbones.imagenet import fetch

    fetch(backbone)


def name_settings(options: Options, flags: Flags) -> dict[str, str]:
    """Options and flags as they are listed in the report."""
    chosen = "".join(name for name, is_set in flags.items() if is_set and len(name) == 1)
    return {name: value for name, value in options.items() if value} | ({"flags": chosen} if chosen else {})


def read_labels(module: TrainModule, options: Options, flags: Flags) -> Dataset:
    """All labelled images."""
    labels = options["training_dataset"] or options.get("labels") or options.get("label_raster")
    gs.message(f"Reading the labels of {labels}...")
    classes = split_names(options["classes"] or "")
    dataset = module.open_labels(options, classes) or open_labels(options, flags, classes)
    if dataset.labels not in module.task.labels:
        raise DatasetError(
            f"In {labels} {dataset.labels} are labelled, and {MODULES[module.task.name][0]} learns from "
            f"labelled {' or '.join(module.task.labels)}. Use {LEARNT_BY[dataset.labels]}"
        )
    for note in dataset.notes:
        gs.warning(note)
    # what shards hold was looked at when they were written, and may be far away
    limit = SHARDS_LOOKED_AT if dataset.band_statistics else LOOKED_AT
    check_values((*dataset.images, *dataset.validation), limit=limit)
    return dataset


def open_labels(options: Options, flags: Flags, classes: Sequence[str]) -> Dataset:
    """Labelled images in any of the formats for objects, or maps with vector maps."""
    class_values = ClassValues.parse(split_names(options["class_values"]), classes)
    if options["training_dataset"]:
        return open_dataset(
            options["training_dataset"],
            classes,
            options["class_column"] or None,
            class_values,
            skip_damaged=flags["d"],
            report=lambda done, total: gs.percent(done, total, 5),
        )
    return check_pixel_sizes(open_maps(options, classes, class_values))


def name_file(image: LabelledImage) -> str:
    """The path of an image; of a part of one with its rows and columns."""
    part = image.name[image.name.rindex("[") :] if isinstance(image.read, WindowReader) else ""
    return image.path + part


def open_images(
    module: TrainModule, options: Options, flags: Flags, settings: TrainingSettings
) -> tuple[Dataset, tuple[LabelledImage, ...]]:
    """The labelled images, a part of them for validation; with the flag -s others for a test."""
    dataset = read_labels(module, options, flags)
    unused: tuple[LabelledImage, ...] = ()
    if flags["s"]:
        dataset, unused = hold_out(dataset, test_share(options), settings.seed, module.set_apart)
        listed = write_unused(settings.logs / "unused.txt", [name_file(image) for image in unused])
        gs.message(f"{len(unused)} images are left out; their list is in {listed}")
    if settings.validation_steps:
        dataset = split_dataset(dataset, validation_share(options), settings.seed, module.set_apart)
    return dataset, unused


def validation_share(options: Options) -> float:
    """Share of the images that validate."""
    share = float(options.get("validation_share") or VALIDATION_SHARE)
    if not 0 < share < 1:
        raise AnnError(f"validation_share={share:g} is not between 0 and 1")
    return share


def test_share(options: Options) -> float:
    """The share of the images that the flag -s leaves out."""
    share = float(options.get("test_share") or TEST_SHARE)
    if not 0 < share < 1:
        raise AnnError(f"test_share={share:g} is not between 0 and 1")
    return share


def write_unused(path: Path, images: Sequence[str]) -> Path:
    """List the images that are left out; returns the file.

    Raises:
        AnnError: there is another list already, which may not be overwritten.
    """
    text = "".join(f"{image}\n" for image in images)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text and not gs.overwrite():
        raise AnnError(
            f"{path} lists other images, those that another run left out. Choose another directory for "
            "logs=, or use --overwrite"
        )
    path.write_text(text, encoding="utf-8")
    return path
