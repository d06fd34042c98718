"""The network in training as one Keras model: batches in, losses out, whatever the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
from keras import ops


class TrainingModel(keras.Model):
    """Trains `network`; each task has a class below this one that says in `call` what the losses are.

    It is fed dicts of arrays and has no labels beside them, so `train_on_batch(batch)` needs no `y`. Compile
    it with an optimiser only; the losses are its own.

    `call(batch, training)` gives {loss: (sum, count)}: a loss is its sum over its count. They are divided in
    `loss_values` only, so that counts can be summed over devices first. No gradient goes through a count.
    Measures, as the share of right answers, come with the losses, but nothing is made small by them.

    `network.train_batch_norm` tells whether batch normalisations use the batch's statistics in training, and
    move the stored ones towards them.
    """

    def __init__(self, network: keras.Model, losses: Sequence[str], measures: Sequence[str] = ()):
        super().__init__(name="training", dtype="float32", autocast=False)  # targets stay float32
        self.network = network
        self._measures = frozenset(measures)
        self._loss_metrics = {name: keras.metrics.Mean(name=name) for name in (*losses, *measures)}
        self.built = True

    def constant(self, name: str, values):
        """`values`, a NumPy array, as a variable: compilers get it as an argument and don't fold it."""
        return self.add_weight(
            name=name,
            shape=values.shape,
            dtype=str(values.dtype),
            autocast=False,
            trainable=False,
            initializer=lambda shape, dtype: ops.convert_to_tensor(values, dtype),
        )

    def loss_values(self, y_pred) -> dict:
        """{name: loss}, scalars; a loss without anything to compare is 0."""
        return {name: total / ops.maximum(count, 1.0) for name, (total, count) in y_pred.items()}

    def total(self, values: Mapping):
        """The sum of the losses among the values of losses and measures."""
        return sum(value for name, value in values.items() if name not in self._measures)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.total(self.loss_values(y_pred))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for name, value in self.loss_values(y_pred).items():
            self._loss_metrics[name].update_state(ops.stop_gradient(value))
        return self.get_metrics_result()
