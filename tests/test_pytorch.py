"""What is done otherwise on PyTorch than on the other backends agrees with what they do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from fake_gpu import FakeGPU
from keras import layers

from ann.backbones.whole_convolution import WholeConvolution
from ann.devices import available
from ann.errors import AnnError
from ann.pytorch.graphs import Constants
from ann.pytorch.layers import run
from ann.pytorch.penalty import sum_of_mean_squares
from ann.pytorch.steps import AdamW
from classifier.config import ClassifierConfig
from classifier.network.model import build_network as build_classifier
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.detector import within_memory
from maskrcnn.network import nms, targets, without_loops
from maskrcnn.network.anchors import make_anchors
from maskrcnn.network.inference import MASK_CHUNK, Detector
from maskrcnn.network.model import build_network
from maskrcnn.network.training import TrainingNetwork, anchor_count
from on_backend import ANCHOR_RATIOS, ANCHOR_SCALES, random_boxes
from unet.config import UNetConfig
from unet.network.model import build_network as build_unet


def every_layer() -> keras.Model:
    """A functional model of all kinds of layers that have functions of their own, and one that has none."""
    inputs = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.BatchNormalization(epsilon=1e-3)(layers.Conv2D(4, 7, strides=2)(x))
    x = layers.Activation("relu")(x)
    one = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(one))
    x = layers.Add()([x, layers.Conv2D(4, 2, padding="same", activation="relu")(one)])
    x = layers.BatchNormalization(scale=False)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.SeparableConv2D(4, 3, padding="same")(x)
    x = layers.UpSampling2D(2)(layers.BatchNormalization(center=False)(layers.Conv2D(4, 1)(x)))
    x = layers.Conv2DTranspose(2, 2, strides=2, activation="relu")(x)
    x = layers.MaxPooling2D(4)(x)
    rows = layers.Concatenate(axis=1)([layers.Reshape((-1, 4))(x), layers.Reshape((-1, 4))(one)])
    whole = WholeConvolution(5, 8)(x)
    return keras.Model(inputs, [rows, layers.Dense(2, activation="sigmoid")(whole)])


def test_layers_give_the_values_and_gradients_of_keras():
    model, random = every_layer(), np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    images = np.float32(random.normal(size=(2, 32, 32, 3)))
    outcomes = []
    for function in (lambda: model(images, training=False), lambda: run(model, images)):
        outputs = function()
        total = sum(
            (output * torch.sin(torch.arange(output.numel()).reshape(output.shape))).sum()
            for output in outputs
        )
        gradients = torch.autograd.grad(total, [variable.value for variable in model.trainable_variables])
        outcomes.append([*outputs, *gradients])
    for expected, received in zip(*outcomes, strict=True):
        np.testing.assert_allclose(
            received.detach(), expected.detach(), rtol=2e-4, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("kind", ["classifier", "unet"])
def test_networks_with_models_inside_give_the_values_of_keras(kind):
    values = {"classes": ("wood", "stone"), "image_shape": (32, 32), "band_mean": (0.0,) * 3}
    if kind == "unet":
        network = build_unet(UNetConfig(backbone="unet_resnet18", **values))
    else:
        network = build_classifier(ClassifierConfig(backbone="resnet18", **values))
    images = np.float32(np.random.default_rng(1).normal(size=(2, 32, 32, 3)))
    expected = network(images, training=False).detach()
    np.testing.assert_allclose(
        run(network, images).detach(), expected, atol=1e-4 * float(expected.abs().max())
    )


def test_layers_normalise_by_the_batch_where_it_is_asked_for():
    model = every_layer()
    images = np.float32(np.random.default_rng(1).normal(size=(2, 32, 32, 3)))
    start = [variable.numpy() for variable in model.non_trainable_variables]
    expected = model(images, training=True)
    moved = [variable.numpy() for variable in model.non_trainable_variables]
    for variable, value in zip(model.non_trainable_variables, start, strict=True):
        variable.assign(value)
    for one, other in zip(run(model, images, training=True), expected, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-5)
    for variable, value in zip(model.non_trainable_variables, moved, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)


@pytest.mark.parametrize("count", [1, 300, 3000])
@pytest.mark.parametrize("grouped", [False, True])
def test_suppression_without_loops_is_that_of_the_loops(count, grouped):
    random = np.random.default_rng(3)
    boxes = torch.as_tensor(np.stack([random_boxes(random, 2 * without_loops.BLOCK + 77) for _ in range(2)]))
    valid = torch.as_tensor(random.random(boxes.shape[:2]) < 0.9)
    groups = torch.as_tensor(random.integers(0, 3, boxes.shape[:2]).astype(np.int32)) if grouped else None
    for threshold in (0.0, 0.3, 0.7):
        expected = nms.non_max_suppression(boxes, threshold, count, valid, groups)
        received = without_loops.non_max_suppression(boxes, threshold, count, valid, groups)
        for one, other in zip(received, expected, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_of_a_longer_row_of_rivals_than_there_are_rounds_no_two_stay():
    starts = np.arange(4.0 * without_loops.ROUNDS, dtype=np.float32)  # each overlaps its neighbours
    boxes = torch.as_tensor(np.stack([0 * starts, starts, 0 * starts + 1, starts + 1.5], axis=1))[None]
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool)
    indices, kept = without_loops.non_max_suppression(boxes, 0.1, 100, valid, None)
    stay = indices[kept]
    assert (stay[1:] - stay[:-1] >= 2).all()
    assert stay[: without_loops.ROUNDS // 2].tolist() == list(range(0, without_loops.ROUNDS - 1, 2))


def test_matching_without_loops_is_that_of_the_loop():
    random = np.random.default_rng(5)
    anchors = torch.as_tensor(make_anchors((128, 128), ANCHOR_SCALES, ANCHOR_RATIOS))
    boxes = torch.as_tensor(np.stack([random_boxes(random, 70, 128) for _ in range(2)]))
    class_ids = random.choice([-1, 0, 1, 2], (2, 70), p=[0.1, 0.2, 0.4, 0.3]).astype(np.int32)
    class_ids[1, 20:] = 0
    class_ids = torch.as_tensor(class_ids)
    expected = targets._match_anchors(anchors, class_ids, boxes)
    received = without_loops.match_anchors(anchors, class_ids, boxes, targets._is_on, targets.EQUAL_OVERLAP)
    for one, other in zip(received, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_penalty_of_all_weights_is_the_sum_over_each():
    weights = [torch.randn(shape, requires_grad=True) for shape in ((3, 4), (5,), (1, 1, 2, 2))]
    outcomes = []
    for penalty in (sum_of_mean_squares(weights), sum((one**2).mean() for one in weights)):
        outcomes.append([penalty, *torch.autograd.grad(3 * penalty, weights)])
    for received, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(received, expected)


def test_the_optimiser_is_that_of_keras():
    random = np.random.default_rng(2)
    start = [np.float32(random.normal(size=shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
    steps = [
        [torch.as_tensor(value * size) for value in start] for size in (0.1, 5.0, 0.3)
    ]  # some are clipped
    outcomes = []
    for kind in (keras.optimizers.AdamW, AdamW):
        weights = [keras.Variable(value) for value in start]
        optimizer = kind(0.01, weight_decay=0.1, global_clipnorm=1.0)
        with torch.no_grad():
            for gradients in steps:
                optimizer.apply(gradients, weights)
        outcomes.append([variable.numpy() for variable in (*weights, *optimizer.variables)])
    for expected, received in zip(*outcomes, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_a_number_is_sent_to_the_device_once():
    with Constants():
        one, same, other = (keras.ops.convert_to_tensor(value) for value in (2.5, 2.5, 3.5))
        rows, same_rows = (keras.ops.convert_to_tensor([1, 2], dtype="int32") for _ in range(2))
    assert one is same and rows is same_rows
    assert float(other) == 3.5 and rows.tolist() == [1, 2]


def test_a_driver_that_is_too_old_is_told_in_its_own_words(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(available, "gpu_in_use", lambda: False)

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nUpdate it")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    told = available.missing_gpu()
    assert "torch computes on the CPU: The NVIDIA driver on your system is too old (found version" in told
    assert "Update it" not in told
    monkeypatch.setenv("PATH", "")
    assert available.missing_gpu() == ""


def test_too_little_memory_of_the_device_is_told_with_what_to_lower():
    def exhaust(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert within_memory(lambda images: images + 1)(1) == 2
    with pytest.raises(AnnError, match="Lower batch_size"):
        within_memory(exhaust)(1)


CONFIG = MaskRCNNConfig(
    classes=("a", "b"), backbone="resnet18", image_shape=(128, 128), band_mean=(0.0,) * 3, max_instances=40
)


def batch_shapes(count: int) -> dict:
    """Arrays of a training batch."""
    places = CONFIG.max_instances + 64
    return {
        "images": np.zeros((count, 128, 128, 3), np.float32),
        "class_ids": np.zeros((count, places), np.int32),
        "boxes": np.zeros((count, places, 4), np.float32),
        "masks": np.zeros((count, CONFIG.max_instances, 128, 128), np.uint8),
        "anchor_noise": np.zeros((count, anchor_count(CONFIG)), np.float32),
        "roi_noise": np.zeros((count, CONFIG.roi_candidates), np.float32),
    }


def test_a_step_of_training_neither_waits_for_the_gpu_nor_uploads():
    gpu, model = FakeGPU(), TrainingNetwork(build_network(CONFIG))
    optimizer = AdamW(1e-3, weight_decay=1e-4, global_clipnorm=5.0)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    gpu.move(list({id(one): one for one in (*model.variables, *optimizer.variables)}.values()))
    batch = {name: gpu.empty(values) for name, values in batch_shapes(2).items()}
    for step in (model._steps._train, model._steps._test):
        for first in (True, False):
            with gpu.use() as asked:
                step._run(batch)
            assert not asked.waits
            assert first or not asked.uploads  # constants, in the first
            assert asked.launches.total() < 4000


def test_detection_waits_for_its_results_only(monkeypatch):
    gpu, network = FakeGPU(), build_network(CONFIG)
    anchors = gpu.empty(network.unit_anchors(CONFIG.image_shape))
    monkeypatch.setattr(type(network), "unit_anchors", lambda *_: anchors)
    detector = Detector(network)
    gpu.move(network.variables)
    images, windows = (gpu.empty(np.zeros(shape, np.float32)) for shape in ((2, 128, 128, 3), (2, 4)))
    confidence = gpu.empty(np.float32(0))
    chosen = (gpu.empty(np.zeros(MASK_CHUNK, np.int32)), gpu.empty(np.zeros((MASK_CHUNK, 4), np.float32)))
    for first in (True, False):
        with gpu.use() as asked:
            glue, parts = detector.glue((128, 128)), detector._parts
            *pyramid, logits, deltas = parts.features._run(images)
            rois, pooled, cells = glue.propose._run(tuple(pyramid), logits, deltas, glue.anchors, windows)
            logits, deltas = parts.box_head._run(pooled)
            glue.detect._run(rois, logits, deltas, windows, confidence)
            parts.mask_head._run(glue.pool_masks._run(cells, *chosen))
        assert not asked.waits
        assert first or not asked.uploads
        assert asked.launches.total() < 2000
