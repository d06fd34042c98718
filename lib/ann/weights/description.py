"""The JSON attribute that describes a model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

from ann.config import ModelConfig
from ann.errors import ModelFileError
from ann.weights.kind import ModelKind

DESCRIPTION = "maskrcnn"  # the attribute; `inspection.py`, which imports nothing from here, repeats both
STATE_GROUP = "training_state"
FORMAT_VERSION = 1

MAX_CLASSES = 10_000
MAX_SIDE = 1 << 15  # pixels of the network's input; what a broken description may ask for at most
MAX_COUNT = 10_000_000  # of anchors, proposals, instances


def write_description(config: ModelConfig, extra: Mapping | None, checksums: Mapping) -> str:
    """The attribute's text.

    Raises:
        TypeError: `extra` holds something that JSON can't.
    """
    return json.dumps(
        {
            "format": FORMAT_VERSION,
            "network": config.network,
            "config": json.loads(config.to_json()),
            "training": dict(extra or {}),
            "checksums": checksums,
        }
    )


def read_description(kind: ModelKind, text: str) -> tuple[ModelConfig, dict, dict]:
    """The attribute's config, `extra` and checksums. Files without a network's name hold a Mask R-CNN.

    Raises:
        ModelFileError: no JSON, of another network or a newer format, or with values that no model has.
    """
    try:
        values = json.loads(text)
        kind.check_network(values.get("network", "maskrcnn"))
        version = values["format"]
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise ModelFileError(
                f"it is in format {version!r}, this version reads format {FORMAT_VERSION}. "
                "Update i.ann.maskrcnn"
            )
        config = kind.config.from_json(json.dumps(values["config"]))
        check_values(kind, config)
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


def check_values(kind: ModelKind, config: ModelConfig) -> None:
    """Refuse a description whose values have other types or sizes than any real model.

    A config from our own code needs no such check; one from a file could ask for a network that fills
    the memory, or carry text where the network expects numbers.
    """

    def refuse(field, value):
        raise ModelFileError(
            f"its description has {field} = {ascii(value)[:60]}, which no model has. Use another copy"
        )

    names = {"classes": config.classes, "band_labels": config.band_labels}
    for field, values in names.items():
        if not isinstance(values, tuple) or len(values) > MAX_CLASSES:
            refuse(field, values)
        for name in values:
            if not isinstance(name, str) or not name.isprintable() or not name.strip() or len(name) > 200:
                refuse(field, name)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in names or dataclasses.is_dataclass(value):  # which checks itself
            continue
        if value is None and "None" in field.type:
            continue
        for wanted in (str, bool):
            if field.type == wanted.__name__:
                if type(value) is not wanted or len(str(value)) > 200:
                    refuse(field.name, value)
                break
        else:
            numbers = value if "tuple" in field.type else (value,)
            if not isinstance(numbers, tuple) or not 0 < len(numbers) <= 1000:
                refuse(field.name, value)
            if not all(map(is_number, numbers)):
                refuse(field.name, value)
            largest = MAX_SIDE if "shape" in field.name or "scales" in field.name else MAX_COUNT
            whole = "int" in field.type
            if whole and not all(isinstance(one, int) and 0 < one <= largest for one in numbers):
                refuse(field.name, value)
    for field, length in {"image_shape": 2, "mini_mask_shape": 2, **kind.lengths}.items():
        if getattr(config, field, None) is not None and len(getattr(config, field)) != length:
            refuse(field, getattr(config, field))
    if config.pixel_size is not None and config.pixel_size <= 0:
        refuse("pixel_size", config.pixel_size)
