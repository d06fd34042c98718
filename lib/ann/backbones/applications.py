"""Backbones of Keras' own applications for any number of bands: an image in, its last feature map out.

DenseNet121: Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", 2017.
InceptionV3: Szegedy and others, "Rethinking the Inception architecture for computer vision", 2016.
MobileNetV2: Sandler and others, "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
"""

from __future__ import annotations

import re
import warnings

import keras

from ann.weights.layout import all_layers
from ann.weights.loading import adapt_stem

APPLICATIONS = {"densenet121": "DenseNet121", "inceptionv3": "InceptionV3", "mobilenetv2": "MobileNetV2"}
NUMBERED = re.compile(
    r"(conv2d|batch_normalization)(_\d+)?"
)  # names that Keras makes up, by a count of its own


def build_application(name: str, bands: int) -> keras.Model:
    """The backbone `name`, of any image height and width that are multiples of 32, with initial weights.

    Input: (B, H, W, bands) float32, scaled. Output: (B, H', W', channels), at a stride of about 32.
    Layers have the same names each time.
    """
    application = getattr(keras.applications, APPLICATIONS[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This model usually expects")
        model = application(weights=None, include_top=False, input_shape=(None, None, bands))
    counts: dict[str, int] = {}
    for layer in model.layers:
        if found := NUMBERED.fullmatch(layer.name):
            counts[found[1]] = counts.get(found[1], 0) + 1
            layer.name = f"{found[1]}_{counts[found[1]]}"
    return model


def transfer(source: keras.Model, backbone: keras.Model, bands: int) -> None:
    """Give a backbone of `build_application` the weights of one for three bands, see `adapt_stem`.

    What the weights were trained with must be in the scaling of the bands, see `preprocessing`.
    """
    pairs = zip(*(_with_weights(model) for model in (backbone, source)), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        values = theirs.get_weights()
        if number == 0:
            values[0] = adapt_stem(values[0], bands)
        ours.set_weights(values)


def _with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in all_layers(model) if layer.weights]
