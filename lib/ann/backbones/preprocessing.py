"""How images were scaled when ImageNet weights were trained, as the scaling of a model's bands; knows no
Keras.

Weights see what they were trained on: (pixel - mean) / scale band by band, in the order red, green, blue.
Bytes in three bands are scaled so exactly. Of images of other types or bands each band is first brought to
the mean and the spread that ImageNet's bands have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of red, green and blue bytes
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)

TO_PLUS_MINUS_ONE = ((127.5,) * 3, (127.5,) * 3)
STANDARDISED = (IMAGENET_MEAN, IMAGENET_DEVIATION)
# (mean, scale) by backbone, as `preprocess_input` of keras.applications has it
TRAINED_WITH = {
    "densenet121": STANDARDISED,
    "inceptionv3": TO_PLUS_MINUS_ONE,
    "mobilenetv2": TO_PLUS_MINUS_ONE,
}


def imagenet_scaling(
    backbone: str, mean: Sequence[float], deviation: Sequence[float], dtype: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, scale) of each band for a network that starts from ImageNet weights.

    mean, deviation: of the images' bands; dtype: their type.
    """
    bands = len(mean)
    if backbone not in TRAINED_WITH:  # the transfer puts it into the first kernel
        return tuple(mean), tuple(deviation)
    trained_mean, trained_scale = TRAINED_WITH[backbone]
    if bands == 3 and dtype == "uint8":
        return trained_mean, trained_scale
    usual, spread, centre, scale = (
        _for_bands(values, bands)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION, trained_mean, trained_scale)
    )
    new_scale = np.asarray(deviation) * scale / spread
    new_mean = np.asarray(mean) - np.asarray(deviation) * (usual - centre) / spread
    return tuple(new_mean.tolist()), tuple(new_scale.tolist())


def _for_bands(values: Sequence[float], bands: int) -> np.ndarray:
    """Values of three bands for another number: the mean of the three for bands behind them."""
    extended = np.concatenate([values, np.full(max(0, bands - 3), np.mean(values))])
    return extended[:bands]
