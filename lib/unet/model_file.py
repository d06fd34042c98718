"""Model files that hold a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ann import weights
from ann.backbones import names
from ann.errors import ModelFileError
from ann.weights import ModelFile
from ann.weights.kind import ModelKind, Recognised
from unet.config import UNetConfig

STEMS = ("encoder0_conv1", *names.STEMS)  # of the plain networks and of backbones
HEAD = "logits"


def read_model(path: str | Path) -> ModelFile:
    """What a model file holds, see `ann.weights.read_model`."""
    return weights.read_model(path, KIND)


def recognise(path: Path, layers: Mapping[str, tuple]) -> Recognised:
    """Which bands the layers take. What network they are only the description tells.

    Raises:
        ModelFileError: these are not the layers of a U-Net.
    """
    stem = next((layers[name][0].shape for name in STEMS if layers.get(name)), ())
    if not layers.get(HEAD) or len(stem) != 4:
        raise ModelFileError(
            f"Model file {path} holds no U-Net. Use a model of i.ann.unet.train; the models of "
            "i.ann.maskrcnn.train are for i.ann.maskrcnn.detect"
        )
    return Recognised(bands=stem[2])


KIND = ModelKind(config=UNetConfig, stems=STEMS, heads=(HEAD,), recognise=recognise)
