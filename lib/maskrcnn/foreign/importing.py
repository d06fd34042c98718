"""A checkpoint of another program as a `ModelFile`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ann.config import for_bands
from ann.errors import ModelFileError
from ann.weights import ModelFile
from ann.weights.checkpoint import Checkpoint, is_checkpoint, read_checkpoint
from ann.weights.loading import some
from ann.weights.model_file import ArrayReader, DerivedArray
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.foreign import variants
from maskrcnn.foreign.coco import COCO_CLASSES, COCO_NUMBERS
from maskrcnn.foreign.conversion import Plan, plan
from maskrcnn.foreign.recognition import IGNORED, Network, plain_names, recognise
from maskrcnn.foreign.settings import Settings, read_files_beside
from maskrcnn.model_file import KIND, read_model

TILE = 512  # pixels, the usual side of the images that such models see
TORCHVISION_MEAN, TORCHVISION_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DETECTRON2_MEAN = (103.53, 116.28, 123.675)  # blue, green, red


def open_model(path: str | Path, settings: Mapping[str, object] | None = None) -> ModelFile:
    """Read what a model file holds, whether it is of this program or of another one.

    Args:
        path: an `.h5` file, or a checkpoint (`.pth`, `.pt`, `.pkl`, `.safetensors`).
        settings: what is known of a checkpoint's model that the file can't tell, by the names of
            `settings.py`; it counts more than a `config.yaml` beside the file.

    Raises:
        ModelFileError: no model that can be used; the message says what it is, if that is known.
    """
    path = Path(path)
    if not is_checkpoint(path):
        if settings:
            raise ModelFileError(
                f"Model file {path} describes itself; settings of a model ({', '.join(settings)}) are for "
                "checkpoints of other programs. Leave them out"
            )
        return read_model(path)
    return import_checkpoint(read_checkpoint(path), settings)


def import_checkpoint(checkpoint: Checkpoint, options: Mapping[str, object] | None = None) -> ModelFile:
    """The model that a checkpoint holds.

    Raises:
        ModelFileError: another network, or one of whose layers some are missing, left over, or of another
        shape.
    """
    path = checkpoint.path
    names = plain_names(checkpoint.tensors)
    shapes = {name: checkpoint.tensors[stored].shape for name, stored in names.items()}
    network = recognise(path, shapes)
    layers = plan(network)
    check_tensors(path, network, layers, shapes)
    settings = Settings()
    settings.add(options or {}, "given")
    said_classes = read_files_beside(path, settings)
    if said_classes not in (None, network.class_count - 1):
        raise ModelFileError(
            f"The config.yaml beside model file {path} says {said_classes} classes, but the model has "
            f"{network.class_count - 1}. It belongs to another model: remove or replace it"
        )
    add_stored_means(checkpoint, settings)
    config, notes = describe(path, network, settings, tracked(checkpoint))
    if reversed_order(path, network, settings):
        layers = plan(network, reverse_bands=True)
    return ModelFile(
        kind=KIND,
        path=path,
        layers={
            layer: tuple(
                DerivedArray(
                    target.name,
                    target.shape,
                    tuple(checkpoint.tensors[names[source.name]] for source in target.sources),
                    target.rule,
                )
                for target in targets
            )
            for layer, targets in layers.items()
        },
        backbone=network.backbone,
        bands=network.bands,
        class_count=network.class_count,
        has_description="classes" in settings.values or config.classes[0] != "class_1",
        described=config,
        stamp=checkpoint.stamp,
        notes=(f"{path} is {network.name}, {len(checkpoint.tensors)} tensors", *notes),
    )


def check_tensors(path: Path, network: Network, layers: Plan, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many, or one of another shape."""
    wanted: dict[str, tuple[int, ...]] = {}
    for targets in layers.values():
        for target in targets:
            wanted.update({source.name: source.shape for source in target.sources})
    if missing := [name for name in wanted if name not in shapes]:
        raise ModelFileError(
            f"Model file {path} looks like {network.name}, but {len(missing)} of its {len(wanted)} tensors "
            f"are missing: {some(missing)}. Use a complete file"
        )
    if left := [name for name in shapes if name not in wanted]:
        raise ModelFileError(
            f"Model file {path} looks like {network.name}, but has {len(left)} tensors more than that: "
            f"{some(left)}. It is another network; use another model"
        )
    for name, shape in wanted.items():
        if shapes[name] != shape:
            hint = ""
            if name in ANCHOR_LAYERS:
                hint = ". It has other anchors than three for each place, which is not supported"
            raise ModelFileError(
                f"Model file {path}: the tensor {name} has the shape {shapes[name]}, {network.name} with "
                f"{network.class_count} classes and {network.bands} bands has {shape} there{hint}. Use "
                "another model"
            )


ANCHOR_LAYERS = [
    f"{name}.{kind}"
    for name in (
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "proposal_generator.rpn_head.objectness_logits",
        "proposal_generator.rpn_head.anchor_deltas",
    )
    for kind in ("weight", "bias")
]


def tracked(checkpoint: Checkpoint) -> bool:
    """Whether normalisations counted their batches, as all but frozen ones do."""
    return any(name.endswith("num_batches_tracked") for name in checkpoint.tensors)


def add_stored_means(checkpoint: Checkpoint, settings: Settings) -> None:
    """Older files of detectron2 hold the means and deviations of the bands."""
    for name, setting in (("pixel_mean", "mean"), ("pixel_std", "deviation")):
        stored = next(
            (one for key, one in checkpoint.tensors.items() if IGNORED.search(key) and key.endswith(name)),
            None,
        )
        if stored is not None and 0 < np.prod(stored.shape) <= 1000:
            with ArrayReader(_bare_model(checkpoint)) as reader:
                values = reader.derived_array(stored, name).ravel()
            settings.add({setting: [float(value) for value in values]}, "in the file")


def _bare_model(checkpoint: Checkpoint) -> ModelFile:
    return ModelFile(
        kind=KIND,
        path=checkpoint.path,
        layers={},
        backbone="",
        bands=0,
        class_count=None,
        has_description=False,
        stamp=checkpoint.stamp,
    )


def describe(
    path: Path, network: Network, settings: Settings, counted: bool
) -> tuple[MaskRCNNConfig, list[str]]:
    """The description of the model, and sentences on what it was made of."""
    torchvision = network.program == "torchvision"
    notes: list[str] = []

    def say(what: str, value: object, *names: str, hint: str = "") -> None:
        place = ", ".join(dict.fromkeys(settings.place(name) for name in names))
        notes.append(f"{what}: {value} ({place}{hint if place == 'assumed' else ''})")

    classes = class_names(path, network, settings)
    say(
        "Classes",
        ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else ""),
        "classes",
        hint=", see classes=",
    )
    mean, scale = band_scaling(path, network, settings)
    say("Mean of the bands", numbers(mean), "mean")
    say("Their deviation", numbers(scale), "deviation")

    variant = variants.DETECTRON2
    if torchvision:
        variant = variants.TORCHVISION_V2 if network.version == "v2" else variants.TORCHVISION_V1
    published = torchvision and network.version == "v1" and not counted and network.class_count == 91
    epsilon = float(settings.get("epsilon", 0.0 if published else variant.epsilon))
    unsure = torchvision and network.version == "v1" and not counted
    hint = (
        ", as for the published COCO weights"
        if published
        else ", but 0 if it began as COCO weights"
        if unsure
        else ""
    )
    say("Epsilon of the normalisations", f"{epsilon:g}", "epsilon", hint=hint)
    shorter = settings.get("shorter_side", variant.shorter_side)
    longer = settings.get("longer_side", max(variant.longer_side, shorter))
    changes: dict[str, object] = {
        "epsilon": epsilon,
        "shorter_side": shorter,
        "longer_side": longer if shorter else 0,
        "lowest_score": float(settings.get("lowest_score", variant.lowest_score)),
    }
    say(
        "Images are resized to",
        f"a shorter side of {shorter} pixels, the longer one at most {longer}" if shorter else "nothing",
        "shorter_side",
        "longer_side",
    )
    if not torchvision:
        changes |= {
            "stride_in_3x3": not settings.get("stride_in_1x1", True),
            "pooling_shift": 0.5 if settings.get("aligned", True) else 0.0,
            "pooling_samples": settings.get("samples", 0),
        }
    ratios = settings.get("ratios", (0.5, 1.0, 2.0))
    anchors = settings.get("anchors", MaskRCNNConfig.anchor_scales)
    if len(ratios) != 3 or len(anchors) != 5 or min(*ratios, *anchors) <= 0:
        raise ModelFileError(
            f"Model file {path} is for three anchors at each place of five levels, but its settings have "
            f"the sides {numbers(anchors)} and the ratios {numbers(ratios)}. Correct them"
        )
    try:
        config = MaskRCNNConfig(
            classes=classes,
            backbone=network.backbone,
            image_shape=(TILE, TILE),
            band_mean=mean,
            band_scale=scale,
            variant=dataclasses.replace(variant, **changes),
            **{
                **variants.CONFIG,
                "anchor_scales": tuple(anchors),
                "anchor_ratios": tuple(1 / ratio for ratio in ratios),
                "max_detections": settings.get("detections", variants.CONFIG["max_detections"]),
                "detection_nms_threshold": settings.get(
                    "suppression", variants.CONFIG["detection_nms_threshold"]
                ),
                "proposals_detection": settings.get("proposals", variants.CONFIG["proposals_detection"]),
                "proposal_candidates": settings.get("candidates", variants.CONFIG["proposal_candidates"]),
                "proposal_nms_threshold": settings.get(
                    "proposal_suppression", variants.CONFIG["proposal_nms_threshold"]
                ),
            },
        )
    except ValueError as error:
        raise ModelFileError(f"Model file {path}: its settings make no model. {error}") from error
    return config, notes


def numbers(values) -> str:
    """Numbers for a message."""
    return ", ".join(f"{value:.6g}" for value in values)


def class_names(path: Path, network: Network, settings: Settings) -> tuple[str, ...]:
    """The names given, those of COCO for as many classes as it has, else class_1, class_2, ..."""
    count = network.class_count - 1
    given = settings.get("classes", None)
    if given is not None:
        if len(given) != count or len(set(given)) != count or "" in given:
            raise ModelFileError(
                f"Model file {path} has {count} classes, but {settings.place('classes')} are the names "
                f"{', '.join(given[:20])}. Name all of them, each once, in the order of training, "
                "without the background"
            )
        return tuple(given)
    if network.program == "torchvision" and count == 90:
        names = dict(zip(COCO_NUMBERS, COCO_CLASSES, strict=True))
        return tuple(names.get(number, f"unused_{number}") for number in range(1, 91))
    if network.program == "detectron2" and count == 80:
        return COCO_CLASSES
    return tuple(f"class_{number}" for number in range(1, count + 1))


def band_scaling(
    path: Path, network: Network, settings: Settings
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and scale of each band, in pixel values and in the order of our bands."""
    bands = network.bands
    if network.program == "torchvision":
        largest = float(settings.get("range", 255.0))
        mean = for_bands(TORCHVISION_MEAN, bands)
        scale = for_bands(TORCHVISION_DEVIATION, bands)
    else:
        largest = 1.0
        mean = tuple(DETECTRON2_MEAN[band % 3] for band in range(bands))
        scale = (1.0,) * bands
    mean, scale = (settings.get(name, values) for name, values in (("mean", mean), ("deviation", scale)))
    for what, values in (("means", mean), ("deviations", scale)):
        if len(values) != bands or (what == "deviations" and 0 in values):
            raise ModelFileError(
                f"Model file {path} has {bands} bands, but its settings have the {what} {numbers(values)}. "
                "Give one for each band"
            )
    if reversed_order(path, network, settings):
        mean, scale = mean[::-1], scale[::-1]
    return tuple(largest * value for value in mean), tuple(largest * value for value in scale)


def reversed_order(path: Path, network: Network, settings: Settings) -> bool:
    """Whether the program reads the three bands from blue to red; here they are always as given, red
    first.
    """
    order = str(settings.get("order", "bgr")).lower()
    if order not in ("bgr", "rgb"):
        raise ModelFileError(f"Model file {path}: the order of its bands is {order!a}, expected bgr or rgb")
    return network.program == "detectron2" and network.bands == 3 and order == "bgr"
