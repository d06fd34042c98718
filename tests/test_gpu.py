"""What only a GPU can show. `pytest -m gpu`, with KERAS_BACKEND=torch or jax."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from ann.devices.available import gpu_in_use
from ann.training.loop import make_optimizer
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.inference import Detector
from maskrcnn.network.model import build_network
from maskrcnn.network.training import TrainingNetwork, anchor_count

pytestmark = pytest.mark.gpu
CONFIG = MaskRCNNConfig(
    classes=("a", "b"), backbone="resnet18", image_shape=(256, 256), band_mean=(0.0,) * 3, max_instances=10
)


@pytest.fixture(autouse=True)
def on_gpu():
    if not gpu_in_use():
        pytest.skip("there is no GPU")


def draw_batch(seed):
    random = np.random.default_rng(seed)
    low = random.integers(0, 128, (2, 10, 2))
    boxes = np.concatenate([low, low + random.integers(20, 100, (2, 10, 2))], axis=-1).astype(np.float32)
    masks = np.zeros((2, 10, 256, 256), np.uint8)
    for image, place in np.ndindex(2, 10):
        y1, x1, y2, x2 = boxes[image, place].astype(int)
        masks[image, place, y1:y2, x1:x2] = 1
    return {
        "images": random.normal(size=(2, 256, 256, 3)).astype(np.float32),
        "class_ids": random.integers(1, 3, (2, 10)).astype(np.int32),
        "boxes": boxes,
        "masks": np.packbits(masks, axis=-1),
        "anchor_noise": random.random((2, anchor_count(CONFIG)), dtype=np.float32),
        "roi_noise": random.random((2, CONFIG.roi_candidates), dtype=np.float32),
    }


def train(steps_of):
    """Losses of eight steps; steps_of: model -> what makes them."""
    seed_everything(1)
    model = TrainingNetwork(build_network(CONFIG))
    model.make_steps = lambda: steps_of(model)
    model.compile(make_optimizer(TrainingSettings(name="", logs=Path(), learning_rate=1e-4)))
    model.optimizer.build(model.trainable_variables)
    batches = [draw_batch(seed) for seed in range(2)]
    return [model.train_on_batch(batches[step % 2])["loss"] for step in range(8)], model


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch records")
def test_recorded_steps_train_as_those_that_are_started_kernel_by_kernel():
    from ann.pytorch.steps import Steps

    expected, _ = train(lambda model: Steps(model, record=False))
    received, model = train(Steps)
    assert model._steps._train.recorded
    np.testing.assert_allclose(received, expected, rtol=0.02)
    assert received[-1] < received[0]


def test_detections_are_the_same_each_time():
    detector = Detector(build_network(CONFIG))
    images = [np.random.default_rng(seed).normal(size=(2, 256, 256, 3)).astype(np.float32) for seed in (1, 2)]
    first = detector(images[0])
    for _ in range(3):
        detector(images[1])
    for one, other in zip(detector(images[0]), first, strict=True):
        assert len(one.scores) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        np.testing.assert_array_equal(one.class_ids, other.class_ids)
