"""Steps of training on one JAX device, without what Keras does around each.

Between Keras' steps all variables, a thousand of them, get their new values one by one while the device
waits. Here the values stay with the compiled step: the variables have none until `share` gives them back.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp


class Steps:
    """Steps of a `TrainingModel` that is compiled with an optimiser."""

    def __init__(self, model):
        self._model = model
        self._state = None
        self._train = jax.jit(self._train_on, donate_argnums=(0, 1, 2))
        self._test = jax.jit(self._test_on)

    def train(self, batch: Mapping) -> dict:
        """Train on a batch, {name: array}: {loss: scalar}, which the host does not wait for."""
        if not self._model.optimizer.built:
            self._model.optimizer.build(self._model.trainable_variables)
        values, self._state = self._train(*self._values(), dict(batch))
        return values

    def test(self, batch: Mapping) -> dict:
        """Losses of a batch, as `train` gives them."""
        trainable, other, _ = self._values()
        return self._test(trainable, other, dict(batch))

    def set_learning_rate(self, rate: float) -> None:
        """The rate of the steps from now on."""
        optimizer = self._model.optimizer
        if self._state is None:
            optimizer.learning_rate = rate
            return
        place = next(index for index, one in enumerate(optimizer.variables) if one is optimizer.learning_rate)
        self._state[2][place] = jnp.float32(rate)

    def share(self) -> None:
        """Give model and optimiser the values that their variables have by now."""
        if self._state is None:
            return
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._state = None

    def _variables(self):
        model = self._model
        return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables

    def _values(self):
        return self._state or [[one.value for one in variables] for variables in self._variables()]

    def _losses(self, trainable, other, batch, training):
        outputs, other = self._model.stateless_call(trainable, other, batch, training=training)
        values = self._model.loss_values(outputs)
        return self._model.total(values), (values, other)

    def _train_on(self, trainable, other, optimizer_variables, batch):
        slopes = jax.value_and_grad(self._losses, has_aux=True)
        (_, (values, other)), gradients = slopes(trainable, other, batch, True)
        trainable, optimizer_variables = self._model.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        return values, [trainable, other, optimizer_variables]

    def _test_on(self, trainable, other, batch):
        return self._losses(trainable, other, batch, False)[1][0]
