"""The U-Net in training: its losses for a batch."""

from __future__ import annotations

import keras
from keras import ops

from ann.layers import run_layers
from ann.training.model import TrainingModel
from unet.config import UNetConfig
from unet.network import losses

LOSSES = {"cross_entropy": ("cross_entropy_loss",), "dice": ("dice_loss",)}
LOSSES["both"] = (*LOSSES["cross_entropy"], *LOSSES["dice"])


class UNetTraining(TrainingModel):
    """Trains a U-Net on batches of images with the class of each cell.

    A batch is a dict of arrays:
        images: (B, H, W, bands) float32, scaled
        labels: (B, H, W) int16, class ids; negative where nothing is known
    """

    def __init__(self, network: keras.Model, config: UNetConfig):
        super().__init__(network, LOSSES[config.loss])
        self._config = config

    def call(self, batch, training=False):
        """Losses of a batch, {name: (sum, count)}, scalars float32."""
        logits = run_layers(self.network, batch["images"], training and self.network.train_batch_norm)
        truth, known = losses.targets(batch["labels"], self._config.output_count)
        logits = ops.cast(logits, "float32")
        values = {
            "cross_entropy_loss": lambda: losses.cross_entropy(
                truth, known, logits, self._config.class_weights
            ),
            "dice_loss": lambda: losses.dice(truth, known, logits),
        }
        return {name: values[name]() for name in LOSSES[self._config.loss]}
