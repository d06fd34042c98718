"""The classifier in training: its loss for a batch, and how often it is right."""

from __future__ import annotations

import keras
from keras import ops

from ann.training.model import TrainingModel
from classifier.config import ClassifierConfig


class ClassifierTraining(TrainingModel):
    """Trains a classifier on batches of images with a class each.

    A batch is a dict of arrays:
        images: (B, H, W, bands) float32, scaled
        labels: (B,) int32, class ids, 1 is the first class
    """

    def __init__(self, network: keras.Model, config: ClassifierConfig):
        super().__init__(network, ("class_loss",), measures=("accuracy",))
        self._config = config

    def call(self, batch, training=False):
        """The loss and the measure of a batch, {name: (sum, count)}, scalars float32."""
        backbone, *head = self.network.layers[1:]
        # normalisations of initial weights keep their statistics; dropout works in any case
        x = backbone(batch["images"], training=training and self.network.train_batch_norm)
        for layer in head:
            x = layer(x, training=training)
        logits = ops.cast(x, "float32")
        labels = ops.cast(batch["labels"], "int32") - 1
        truth = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        loss = keras.losses.categorical_crossentropy(
            truth, logits, from_logits=True, label_smoothing=self._config.label_smoothing
        )
        right = ops.cast(ops.argmax(logits, axis=-1) == ops.cast(labels, "int32"), "float32")
        count = ops.sum(ops.ones_like(right))
        return {"class_loss": (ops.sum(loss), count), "accuracy": (ops.sum(right), count)}
