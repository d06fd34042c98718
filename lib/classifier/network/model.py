"""The classifier: a backbone, the mean of its last features, and a number for each class."""

from __future__ import annotations

import keras
from keras import layers

from ann.backbones.applications import APPLICATIONS, build_application
from ann.backbones.building import build_backbone
from ann.backbones.statistics import follow_closely
from classifier.config import ClassifierConfig

DROPOUT = 0.2


def build_network(config: ClassifierConfig) -> keras.Model:
    """The network that `config` describes, with initial weights, under Keras' global dtype policy.

    Input: (B, H, W, bands) float32, scaled. Output: (B, K) float32 logits of the classes (a softmax makes
    them probabilities).

    Weights are drawn from Keras' global seed generator (`keras.utils.set_random_seed`).
    """
    images = keras.Input((*config.image_shape, config.bands), name="images")
    x = layers.GlobalAveragePooling2D(name="mean")(last_features(config)(images))
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Dense(len(config.classes), dtype="float32", name="logits")(x)
    network = keras.Model(images, x, name=config.backbone)
    follow_closely(network)
    network.train_batch_norm = True  # see `TrainingModel`
    return network


def last_features(config: ClassifierConfig) -> keras.Model:
    """The backbone, giving its last feature map, as a model called "backbone"."""
    if config.backbone in APPLICATIONS:
        backbone = build_application(config.backbone, config.bands)
        return keras.Model(backbone.input, backbone.output, name="backbone")
    backbone = build_backbone(config.backbone, config.bands)
    return keras.Model(backbone.input, backbone.outputs[-1], name="backbone")
