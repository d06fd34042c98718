"""Steps of training as this library makes them on PyTorch and JAX, against those of Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from ann.training.loop import LossSums, make_optimizer
from ann.training.model import TrainingModel
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings


class Fit(TrainingModel):
    """A small network that learns a curve; two losses."""

    def __init__(self, network):
        super().__init__(network, ("curve_loss", "size_loss"))
        self._scale = self.constant("scale", np.float32([2.0]))

    def call(self, batch, training=False):
        difference = self.network(batch["x"], training=training) * self._scale - batch["y"]
        size = ops.sum(ops.square(self.network.layers[-1].kernel))
        return {
            "curve_loss": (ops.sum(difference**2), ops.cast(ops.size(difference), "float32")),
            "size_loss": (size, ops.ones(())),
        }


def fit(folder, steps, *, by_keras):
    """Losses of each step, and the weights and the optimiser's variables after them."""
    seed_everything(3)
    network = keras.Sequential(
        [keras.Input((2,)), layers.Dense(8, use_bias=False), layers.BatchNormalization(), layers.Dense(1)]
    )
    network.train_batch_norm = True
    model = Fit(network)
    if by_keras:
        model.make_steps = lambda: None
    model.compile(optimizer=make_optimizer(TrainingSettings(name="a", logs=folder)), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    random, losses = np.random.default_rng(1), []
    for step in range(steps):
        x = np.float32(random.normal(size=(16, 2)))
        batch = {"x": x, "y": np.sin(x[:, :1])}
        model.set_learning_rate(0.01 / (step + 1))
        losses.append({name: float(value) for name, value in model.take_step(batch).items()})
    model.share()
    checked = model.test_on_batch(batch)
    state = [variable.numpy() for variable in (*network.variables, *model.optimizer.variables)]
    return losses, checked, state


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="there Keras makes the steps")
def test_steps_train_as_those_of_keras(tmp_path):
    expected, received = (fit(tmp_path, 5, by_keras=by_keras) for by_keras in (True, False))
    for one, other in zip(received[0], expected[0], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert received[1] == pytest.approx(expected[1], rel=1e-5)
    for one, other in zip(received[2], expected[2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_step_learns_and_tells_its_own_losses(tmp_path):
    losses, checked, _ = fit(tmp_path, 30, by_keras=False)
    assert list(losses[0]) == ["curve_loss", "size_loss"]
    assert losses[-1]["curve_loss"] < losses[0]["curve_loss"]
    assert checked["loss"] == pytest.approx(checked["curve_loss"] + checked["size_loss"], rel=1e-5)


def test_losses_are_added_up_and_read_now_and_then():
    class Unread:
        """A value that counts how often it is looked at."""

        looks = 0

        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            Unread.looks += 1
            return np.asarray(self.value, dtype)

    def read(values):
        return {"loss": 2.0} | {name: float(np.asarray(value)) for name, value in values.items()}

    sums = LossSums(read)
    for value in range(9):
        sums.add({"a": Unread(float(value))})
    assert Unread.looks == 0 and sums.total == 0
    sums.add({"a": Unread(9.0)}, wait=True)
    assert Unread.looks == 10 and sums.total == 20
    assert sums.means() == {"loss": 2.0, "a": 4.5}
    assert LossSums(read).means() == {}
