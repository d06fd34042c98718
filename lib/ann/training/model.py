"""The network in training as one Keras model: batches in, losses out, whatever the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
from keras import ops


class TrainingModel(keras.Model):
    """Trains `network`; each task has a class below this one that says in `call` what the losses are.

    It is fed dicts of arrays and has no labels beside them, so `take_step(batch)` needs no `y`. Compile it
    with an optimiser only; the losses are its own.

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
        self.loss_names = (*losses, *measures)
        self._loss_metrics = {name: keras.metrics.Mean(name=name) for name in self.loss_names}
        self._steps = None
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

    def take_step(self, batch: Mapping) -> dict:
        """Train on a batch: {loss: scalar}, numbers or values that the device still computes."""
        if self._steps is not None:
            return self._steps.train(batch)
        return self._by_keras(super().train_on_batch, batch)

    def losses_of(self, batch: Mapping) -> dict:
        """The losses of a batch as they are, in the form of `take_step`."""
        if self._steps is not None:
            return self._steps.test(batch)
        return self._by_keras(super().test_on_batch, batch)

    def set_learning_rate(self, rate: float) -> None:
        """The rate of the steps from now on."""
        if self._steps is not None:
            self._steps.set_learning_rate(rate)
        else:
            self.optimizer.learning_rate = rate

    def train_on_batch(self, batch, return_dict=True) -> dict[str, float]:
        """`take_step`, waited for, with the sum of the losses first: "loss"."""
        losses = self.with_total(self.take_step(batch))
        self.share()
        return losses

    def test_on_batch(self, batch, return_dict=True) -> dict[str, float]:
        """`losses_of`, in the form of `train_on_batch`."""
        return self.with_total(self.losses_of(batch))

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options)
        self._steps = self.make_steps()

    def make_steps(self):
        """What makes the steps in place of Keras; None if Keras does."""
        if keras.backend.backend() == "torch":
            from ann.pytorch.steps import Steps
        elif keras.backend.backend() == "jax" and keras.distribution.distribution() is None:
            from ann.training.jax_steps import Steps
        else:
            return None
        return Steps(self)

    def share(self) -> None:
        """After steps, before weights are read: have the variables hold them."""
        if keras.backend.backend() == "jax" and self._steps is not None:
            self._steps.share()

    def add_up(self, values: list) -> list:
        """Scalars -> their sums over all that train together: this model alone."""
        return values

    def add_up_gradients(self, gradients: list) -> None:
        """Replace gradients, on PyTorch, by their sums over all that train together."""

    def loss_values(self, y_pred) -> dict:
        """{name: loss}, scalars; a loss without anything to compare is 0."""
        return {name: total / ops.maximum(count, 1.0) for name, (total, count) in y_pred.items()}

    def total(self, values: Mapping):
        """The sum of the losses among the values of losses and measures."""
        return sum(value for name, value in values.items() if name not in self._measures)

    def with_total(self, values: Mapping) -> dict[str, float]:
        """Losses and measures as numbers, the total of the losses first."""
        values = {name: float(ops.convert_to_numpy(value)) for name, value in values.items()}
        return {"loss": self.total(values)} | values

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.total(self.loss_values(y_pred))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for name, value in self.loss_values(y_pred).items():
            self._loss_metrics[name].update_state(ops.stop_gradient(value))
        return self.get_metrics_result()

    def _by_keras(self, step, batch):
        self.reset_metrics()  # before 3.15 Keras never does, and gives means over all batches since
        losses = step(batch, return_dict=True)
        return {name: losses[name] for name in self.loss_names}
