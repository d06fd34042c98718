"""Fine-tuning in stages: what is frozen stays to the last bit, statistics included, and the rest is
trained."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from classifier.config import ClassifierConfig
from classifier.network.model import build_network
from classifier.network.training import ClassifierTraining
from classifier.task import TASK

pytestmark = pytest.mark.usefixtures("quick_graphs")
CONFIG = ClassifierConfig(classes=("wet", "dry"), backbone="resnet18", image_shape=(32, 32))
BATCH = {
    "images": np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32),
    "labels": np.array([1, 2, 1, 2], np.int32),
}


def changed(network, stage, train_batch_norm):
    """Names of the layers, and kinds of the variables, that a step changes."""
    TASK.set_trainable(network, stage, train_batch_norm)
    model = ClassifierTraining(network, CONFIG)
    before = [np.array(variable.numpy()) for variable in network.weights]
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), jit_compile=False)
    losses = model.train_on_batch(BATCH, return_dict=True)
    assert losses["loss"] == pytest.approx(losses["class_loss"]) and 0 <= losses["accuracy"] <= 1
    found = [
        variable.path.split("/")[-2:]
        for variable, values in zip(network.weights, before, strict=True)
        if np.abs(variable.numpy() - values).max() > 0
    ]
    return {layer for layer, _ in found}, {kind for _, kind in found}


def test_each_stage_trains_its_layers_and_no_others():
    network = build_network(CONFIG)
    layers, _ = changed(network, "heads", False)
    assert layers == {"logits"}
    layers, kinds = changed(network, "4+", False)
    assert {"logits", "res5b_branch2a", "res4a_branch2a"} <= layers
    assert not any(name.startswith(("conv1", "bn_conv1", "res2", "res3", "bn2", "bn3")) for name in layers)
    assert not kinds & {"moving_mean", "moving_variance"}
    layers, kinds = changed(network, "all", True)
    assert {"conv1", "logits"} <= layers and "moving_mean" in kinds
