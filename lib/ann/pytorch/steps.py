"""Steps of training and validation on PyTorch: forward, backward and optimiser, recorded on a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import torch

from ann.pytorch.graphs import Recorded


class Steps:
    """Steps of a `TrainingModel` that is compiled with an optimiser, `AdamW` below as a rule.

    record: whether they may be recorded, see `Recorded`; not where processes wait for each other in them.
    """

    def __init__(self, model, *, record: bool = True):
        self._model = model
        self._train = Recorded(self._train_on, record=record)
        self._test = Recorded(self._test_on, record=record)

    def train(self, batch: Mapping) -> dict:
        """Train on a batch, {name: array}: {loss: scalar tensor}, which the host does not wait for."""
        return self._named(self._train(dict(batch)))

    def test(self, batch: Mapping) -> dict:
        """Losses of a batch, as `train` gives them."""
        return self._named(self._test(dict(batch)))

    def set_learning_rate(self, rate: float) -> None:
        """Set the optimiser's rate without waiting for the device, as an assignment would."""
        with torch.no_grad():
            self._model.optimizer.learning_rate.value.fill_(rate)

    def _named(self, losses):
        return dict(zip(self._model.loss_names, losses.clone().unbind(), strict=True))

    def _train_on(self, batch):
        model = self._model
        shares = model.loss_values(model(batch, training=True))
        total = model.optimizer.scale_loss(model.total(shares))
        weights = model.trainable_weights
        gradients = torch.autograd.grad(total, [weight.value for weight in weights], allow_unused=True)
        with torch.no_grad():
            if (
                total.device.type != "cpu"
            ):  # only what is laid out as the weights is treated all at once there
                gradients = [one if one is None else one.contiguous() for one in gradients]
            model.add_up_gradients([one for one in gradients if one is not None])
            model.optimizer.apply(gradients, weights)
            return self._whole(shares)

    def _test_on(self, batch):
        with torch.no_grad():
            return self._whole(self._model.loss_values(self._model(batch, training=False)))

    def _whole(self, shares):
        return torch.stack(self._model.add_up([shares[name] for name in self._model.loss_names]))


class AdamW(type(keras.optimizers.AdamW())):  # the one that Keras has for PyTorch
    """Keras' AdamW, with all gradients clipped and all weights decayed at once instead of one by one."""

    def _clip_gradients(self, gradients):
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # what is no number stays none
        scale = torch.clamp(self.global_clipnorm / norm, max=1.0) + (norm - norm)
        return torch._foreach_mul(gradients, scale)

    @torch.no_grad()
    def _apply_weight_decay(self, variables):
        weights = [variable.value for variable in variables if self._use_weight_decay(variable)]
        rate = keras.ops.cast(self.learning_rate, "float32")
        decay = torch._foreach_mul(torch._foreach_mul(weights, self.weight_decay), rate)
        torch._foreach_add_(weights, decay, alpha=-1)
