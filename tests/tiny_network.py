"""A Mask R-CNN in name alone, for tests of what goes on around a network (as a task: `tiny_task`).

Its model files have the layers that such a file is known by, a few weights each, and it is fed like a Mask
R-CNN. It learns which classes an image shows, and is compiled in a moment.
"""

from __future__ import annotations

import re

import keras
from keras import layers, ops

from ann.training.model import TrainingModel
from maskrcnn.network.stages import STAGES


def build_network(config):
    images = keras.Input((*config.image_shape, config.bands))
    x = layers.Conv2D(4, 7, strides=8, name="conv1")(images)
    for block in "ab":
        x = layers.Conv2D(4, 3, padding="same", activation="tanh", name=f"res4{block}_branch2a")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = keras.Model(images, layers.Dense(len(config.classes) + 1, name="mrcnn_class_logits")(x))
    network.train_batch_norm = False
    return network


def set_trainable(network, stage, train_batch_norm):
    network.trainable = True
    for layer in network.layers:
        layer.trainable = re.match(STAGES[stage], layer.name) is not None


class TinyTraining(TrainingModel):
    """Cross-entropy of whether an image shows a class, class 0 never."""

    def __init__(self, network):
        super().__init__(network, ["class_loss"])

    def call(self, batch, training=False):
        logits = ops.cast(self.network(batch["images"]), "float32")
        numbers = ops.arange(logits.shape[-1])
        shown = ops.any((batch["class_ids"][..., None] == numbers) & (numbers > 0), axis=1)
        losses = ops.softplus(logits) - ops.cast(shown, "float32") * logits
        return {"class_loss": (ops.sum(losses), ops.cast(ops.size(losses), "float32"))}
