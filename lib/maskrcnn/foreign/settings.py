"""What a file of weights can't tell about its model, from options, files beside it and defaults.

The names of the settings, in options and in a `config.yaml`:

    classes       names of the classes, without the background
    epsilon       of the batch normalisations
    mean          of each band, as the program takes it: torchvision of 0 to 1, detectron2 of grey values
    deviation     by which the difference from the mean is divided, likewise
    range         torchvision: the pixel value that becomes 1
    shorter_side, longer_side    what images are resized to; 0: not at all
    order         detectron2: bgr or rgb, the bands' order in the program
    lowest_score, suppression, detections    of what comes out: least score, IoU, number per tile
    proposals, candidates, proposal_suppression    regions of a tile, candidates for them per level, IoU
    anchors, ratios    sides of the anchors, one for each level, and height : width of each
    stride_in_1x1, aligned, samples    detectron2: see its STRIDE_IN_1X1, POOLER_TYPE, POOLER_SAMPLING_RATIO

detectron2's own names are understood in a `config.yaml`, and the `class_info.json` that geoai writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ann.errors import ModelFileError
from ann.weights.description import is_number
from maskrcnn.foreign.simple_yaml import read_yaml

MAX_FILE = 1 << 20  # bytes of a file beside a model

NUMBER, NUMBERS, TEXT, TEXTS, TRUTH = "a number", "numbers", "a text", "texts", "true or false"
KINDS = {
    "classes": TEXTS,
    "epsilon": NUMBER,
    "mean": NUMBERS,
    "deviation": NUMBERS,
    "range": NUMBER,
    "shorter_side": NUMBER,
    "longer_side": NUMBER,
    "order": TEXT,
    "lowest_score": NUMBER,
    "suppression": NUMBER,
    "detections": NUMBER,
    "proposals": NUMBER,
    "candidates": NUMBER,
    "proposal_suppression": NUMBER,
    "anchors": NUMBERS,
    "ratios": NUMBERS,
    "stride_in_1x1": TRUTH,
    "aligned": TRUTH,
    "samples": NUMBER,
}
SYNONYMS = {
    "class_names": "classes",
    "std": "deviation",
    "image_mean": "mean",
    "image_std": "deviation",
    "min_size": "shorter_side",
    "max_size": "longer_side",
    "eps": "epsilon",
}
DETECTRON2 = {
    "INPUT.FORMAT": "order",
    "INPUT.MIN_SIZE_TEST": "shorter_side",
    "INPUT.MAX_SIZE_TEST": "longer_side",
    "MODEL.PIXEL_MEAN": "mean",
    "MODEL.PIXEL_STD": "deviation",
    "MODEL.ANCHOR_GENERATOR.SIZES": "anchors",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "ratios",
    "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
    "MODEL.RPN.NMS_THRESH": "proposal_suppression",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "candidates",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "proposals",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "lowest_score",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "suppression",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "aligned",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "samples",
    "TEST.DETECTIONS_PER_IMAGE": "detections",
}
WHOLE = ("shorter_side", "longer_side", "detections", "proposals", "candidates", "samples", "anchors")


class Settings:
    """Values by the names of KINDS, each with the place that it comes from; the first place counts."""

    def __init__(self):
        self.values: dict[str, object] = {}
        self.places: dict[str, str] = {}

    def add(self, values: Mapping[str, object], place: str) -> None:
        """Take over what is not set yet.

        Raises:
            ModelFileError: an unknown name, or a value of another kind.
        """
        for name, value in values.items():
            name = SYNONYMS.get(name, name)
            if name not in KINDS:
                raise ModelFileError(
                    f"{place}: there is no setting {name!a} of a model. There are {', '.join(sorted(KINDS))}"
                )
            if value is not None and name not in self.values:
                self.values[name] = checked(name, value, place)
                self.places[name] = place

    def get(self, name: str, default):
        """The value, or a default."""
        return self.values.get(name, default)

    def place(self, name: str) -> str:
        """Where it comes from."""
        return self.places.get(name, "assumed")


def checked(name: str, value: object, place: str) -> object:
    """A value of the right kind."""

    def refuse():
        raise ModelFileError(f"{place}: the setting {name} is {str(value)[:60]!a}, expected {KINDS[name]}")

    kind = KINDS[name]
    several = list(value) if isinstance(value, list | tuple) else [value]
    if kind in (TEXT, TEXTS):
        if not several or not all(
            isinstance(one, str | int) and not isinstance(one, bool) for one in several
        ):
            refuse()
        several = [str(one).strip() for one in several]
        return tuple(several) if kind == TEXTS else several[0]
    if kind == TRUTH:
        if not isinstance(value, bool):
            refuse()
        return value
    numbers = all(is_number(one) and abs(one) < 1e9 for one in several)
    if not several or not numbers or (kind == NUMBER and len(several) != 1):
        refuse()
    if name in WHOLE:
        if any(one != int(one) or one < 0 for one in several):
            refuse()
        several = [int(one) for one in several]
    return tuple(several) if kind == NUMBERS else several[0]


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """Settings given as options: `name=value` or `name:value`, several values of one separated by `/`.

    Raises:
        ModelFileError: without a name or a value.
    """
    values = {}
    for text in texts:
        name, separator, value = text.replace(":", "=", 1).partition("=")
        if not separator or not value.strip():
            raise ModelFileError(f"The setting {text!a} of a model has no value. Give it as name=value")
        name = SYNONYMS.get(name.strip(), name.strip())
        parts = [part.strip() for part in value.split("/")]
        if KINDS.get(name) in (TEXT, TEXTS):
            values[name] = parts
        elif KINDS.get(name) == TRUTH:
            values[name] = {"true": True, "yes": True, "false": False, "no": False}.get(
                value.strip().lower(), value
            )
        else:
            values[name] = [_number(part) for part in parts]
    return values


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def read_files_beside(path: Path, settings: Settings) -> int | None:
    """Add what files beside a model tell: `<model>.yaml` or `config.yaml`, and `class_info.json`.

    Returns the number of classes that a configuration of detectron2 names, None without one.

    Raises:
        ModelFileError: such a file is there and can't be read.
    """
    classes = None
    for beside in (path.with_suffix(".yaml"), path.with_name("config.yaml")):
        if beside.is_file():
            values = parse(beside, read_yaml)
            if not isinstance(values, dict):
                raise ModelFileError(f"{beside} holds no settings by name. Correct or remove it")
            if {"MODEL", "INPUT"} & set(values):
                known, classes = from_detectron2(values)
                settings.add(known, str(beside.name))
            else:
                settings.add({str(name): value for name, value in values.items()}, str(beside.name))
            break
    beside = path.with_name("class_info.json")
    if beside.is_file():
        values = parse(beside, json.loads)
        names = values.get("class_names") if isinstance(values, dict) else None
        if isinstance(names, list) and names and str(names[0]).lower() == "background":
            names = names[1:]
        if names:
            settings.add({"classes": names}, beside.name)
    return classes


def parse(path: Path, reader) -> object:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        return reader(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}, which lies beside the model, can't be read: {error}. Correct or remove it"
        ) from error


def from_detectron2(values: dict) -> tuple[dict[str, object], int | None]:
    """The settings of a configuration of detectron2, and its number of classes."""
    known = {}
    for path, name in DETECTRON2.items():
        value = at(values, path)
        if value is None:
            continue
        if name in ("anchors", "ratios"):
            value = anchors_of(path, value, one_list=name == "ratios")
        elif name == "aligned":
            value = value != "ROIAlign"
        elif name == "order":
            value = str(value).lower()
        known[name] = value
    classes = at(values, "MODEL.ROI_HEADS.NUM_CLASSES")
    return known, classes if isinstance(classes, int) else None


def at(values: object, path: str) -> object:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def anchors_of(path: str, value: object, *, one_list: bool) -> list:
    """[[32], [64], ...] -> [32, 64, ...]; [[0.5, 1, 2]] -> [0.5, 1, 2]."""
    if not isinstance(value, list) or not value or not all(isinstance(one, list) for one in value):
        raise ModelFileError(f"config.yaml: {path} is {str(value)[:60]!a}, expected a list of lists")
    if one_list:
        if any(one != value[0] for one in value):
            raise ModelFileError(
                f"config.yaml: {path} has other ratios for each level, which is not supported"
            )
        return value[0]
    if any(len(one) != 1 for one in value):
        raise ModelFileError(f"config.yaml: {path} has several sizes for a level, which is not supported")
    return [one[0] for one in value]
