"""The moving statistics of normalisations that are trained."""

from __future__ import annotations

import keras
from keras import layers

from ann.weights.layout import all_layers

# Keras' own 0.99 and the 0.999 of MobileNetV2 need thousands of steps until a network from scratch says in
# validation what it says in training
MOMENTUM = 0.9


def follow_closely(network: keras.Model) -> None:
    """Let the moving statistics of all normalisations follow those of the last ten batches or so."""
    for layer in all_layers(network):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
