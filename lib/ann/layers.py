"""How networks call the functional models that they are put together of."""

from __future__ import annotations

import keras


def run_layers(model: keras.Model, inputs, training: bool = False):
    """`model(inputs, training=training)`, on PyTorch by layers that are quicker there (`pytorch.layers`)."""
    if keras.backend.backend() == "torch":
        from ann.pytorch.layers import run

        return run(model, inputs, training)
    return model(inputs, training=training)
