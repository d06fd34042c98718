"""The JSON attribute that describes a model, and what can be said of a file without one."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence

from ann.errors import ModelFileError
from maskrcnn.config import LEGACY, MaskRCNNConfig

DESCRIPTION = (
    "maskrcnn"  # the attribute; `inspection.py`, which imports nothing from here, repeats both names
)
STATE_GROUP = "training_state"
FORMAT_VERSION = 1
VARIANT_VERSION = 2  # of models that earlier versions would take for legacy ones

STEM = "conv1"
CLASS_LAYER = "mrcnn_class_logits"
HEADS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")  # the layers whose shapes depend on the classes

RESIDUAL_BLOCK = re.compile(r"^res4([a-z])_branch2a$")
STAGE_4_BLOCKS = {2: "resnet18", 6: "resnet50", 23: "resnet101"}

MAX_CLASSES = 10_000
MAX_SIDE = 1 << 15  # pixels of the network's input; what a broken description may ask for at most
MAX_COUNT = 10_000_000  # of anchors, proposals, instances


def recognise_backbone(layers: Sequence[str]) -> str | None:
    """The backbone whose layers these are, by the blocks of its fourth stage; None if it is no known one."""
    blocks = {match[1] for match in map(RESIDUAL_BLOCK.match, layers) if match}
    name = STAGE_4_BLOCKS.get(len(blocks))
    bottleneck = "res4a_branch2c" in layers
    return name if STEM in layers and name and bottleneck == (name != "resnet18") else None


def recognised_config(backbone: str, bands: int, class_count: int) -> MaskRCNNConfig:
    """Description of a legacy file: what its layers say, and the legacy values for the rest.

    The classes have no names in such a file: they are called class_1, class_2, ... . Bands beyond the
    three of the legacy mean get the mean of these.
    """
    mean = MaskRCNNConfig.band_mean
    added = (sum(mean) / len(mean),) * (bands - len(mean))
    return MaskRCNNConfig(
        classes=tuple(f"class_{number}" for number in range(1, class_count)),
        backbone=backbone,
        band_mean=(mean + added)[:bands],
        band_scale=(1.0,) * bands,
    )


def write_description(config: MaskRCNNConfig, extra: Mapping | None, checksums: Mapping) -> str:
    """The attribute's text.

    Raises:
        TypeError: `extra` holds something that JSON can't.
    """
    return json.dumps(
        {
            "format": FORMAT_VERSION if config.variant == LEGACY else VARIANT_VERSION,
            "config": json.loads(config.to_json()),
            "training": dict(extra or {}),
            "checksums": checksums,
        }
    )


def read_description(text: str) -> tuple[MaskRCNNConfig, dict, dict]:
    """The attribute's config, `extra` and checksums.

    Raises:
        ModelFileError: no JSON, of a newer format, or with values that no model has.
    """
    try:
        values = json.loads(text)
        version = values["format"]
        if version not in (FORMAT_VERSION, VARIANT_VERSION):
            raise ModelFileError(
                f"it is in format {version!r}, this version reads formats up to {VARIANT_VERSION}. "
                "Update i.ann.maskrcnn"
            )
        config = MaskRCNNConfig.from_json(json.dumps(values["config"]))
        check_values(config)
        extra, checksums = values.get("training", {}), values.get("checksums", {})
        if not isinstance(extra, dict) or not isinstance(checksums, dict):
            raise ModelFileError("its description is damaged. Use another copy of it")
        return config, extra, checksums
    except ModelFileError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(
            f"its description is damaged ({type(error).__name__}: {str(error)[:200]}). Use another copy of it"
        ) from error


def is_number(value: object) -> bool:
    """A finite number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_values(config: MaskRCNNConfig) -> None:
    """Refuse a description whose values have other types or sizes than any real model.

    A config from our own code needs no such check; one from a file could ask for a network that fills
    the memory, or carry text where the network expects numbers.
    """

    def refuse(field, value):
        raise ModelFileError(
            f"its description has {field} = {ascii(value)[:60]}, which no model has. Use another copy"
        )

    classes = config.classes
    if not isinstance(classes, tuple) or len(classes) > MAX_CLASSES:
        refuse("classes", classes)
    for name in classes:
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or len(name) > 200:
            refuse("classes", name)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in ("classes", "backbone", "variant") or (value is None and field.default is None):
            continue
        if isinstance(field.default, str | bool):
            if type(value) is not type(field.default) or len(str(value)) > 200:
                refuse(field.name, value)
            continue
        if isinstance(field.default, tuple) or field.name == "mini_mask_shape":
            if not isinstance(value, tuple) or not 0 < len(value) <= 1000 or not all(map(is_number, value)):
                refuse(field.name, value)
            numbers = value
        elif not is_number(value):
            refuse(field.name, value)
        else:
            numbers = (value,)
        first = field.default[0] if isinstance(field.default, tuple) else field.default
        whole = isinstance(first, int) or field.name == "mini_mask_shape"
        largest = MAX_SIDE if field.name in ("image_shape", "mini_mask_shape", "anchor_scales") else MAX_COUNT
        if whole and not all(isinstance(number, int) and 0 < number <= largest for number in numbers):
            refuse(field.name, value)
    for field, length in (("image_shape", 2), ("anchor_scales", 5), ("box_deviation", 4)):
        if len(getattr(config, field)) != length:
            refuse(field, getattr(config, field))
    if config.pixel_size is not None and config.pixel_size <= 0:
        refuse("pixel_size", config.pixel_size)
    if config.mini_mask_shape is not None and len(config.mini_mask_shape) != 2:
        refuse("mini_mask_shape", config.mini_mask_shape)
