"""Model files that hold a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ann import weights
from ann.backbones import names
from ann.errors import ModelFileError
from ann.weights import ModelFile
from ann.weights.kind import ModelKind, Recognised
from classifier.config import ClassifierConfig

STEMS = (*names.STEMS, "conv1_conv", "conv2d_1", "Conv1")  # the last of DenseNet121, InceptionV3, MobileNetV2
HEAD = "logits"


def read_model(path: str | Path) -> ModelFile:
    """What a model file holds, see `ann.weights.read_model`."""
    return weights.read_model(path, KIND)


def recognise(path: Path, layers: Mapping[str, tuple]) -> Recognised:
    """Bands and classes that the layers are for.

    Raises:
        ModelFileError: these are not the layers of a classifier.
    """
    stem = next((layers[name][0].shape for name in STEMS if layers.get(name)), ())
    head = layers[HEAD][0].shape if layers.get(HEAD) else ()
    if len(stem) != 4 or len(head) != 2:
        raise ModelFileError(
            f"Model file {path} holds no classifier. Use a model of i.ann.classifier.train; those of "
            "i.ann.maskrcnn.train and i.ann.unet.train are for the modules of their names"
        )
    return Recognised(bands=stem[2], class_count=head[1] + 1)


KIND = ModelKind(config=ClassifierConfig, stems=STEMS, heads=(HEAD,), recognise=recognise)
