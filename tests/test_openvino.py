"""OpenVINO in place of Keras: the same numbers, the same detections, and Keras where it can't be used."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from ann.cluster.tile_worker import TileWorker
from ann.devices.available import gpu_in_use
from ann.inference.openvino import openvino_version
from ann.inference.tile_rows import TileBatch
from ann.inference.tiles import Tile
from ann.training.seeds import seed_everything
from ann.weights import save_model
from grass_session import REPOSITORY, common_variables, create_mapset, open_session, warm_python
from maskrcnn.cluster import DetectionWork
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.pipeline import DetectionSettings
from maskrcnn.model_file import read_model
from maskrcnn.network.inference import MASK_CHUNK, Detector, compiled_parts
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.model import build_network
from maskrcnn.network.openvino import choose_parts, openvino_parts
from maskrcnn.network.steps import choose_steps

pytest.importorskip("openvino")

SHAPE = (128, 192)
TOLERANCE = 1e-4  # of the largest value; measured: 5e-6


@pytest.fixture(scope="module")
def network():
    """ResNet18 whose normalisations do something, with a few dozen detections in noise."""
    seed_everything(5)
    config = MaskRCNNConfig(
        classes=("house", "tree"),
        backbone="resnet18",
        image_shape=SHAPE,
        anchor_scales=(8, 16, 32, 64, 128),
        proposal_candidates=300,
        proposals_detection=60,
        max_detections=40,
    )
    network = build_network(config)
    random = np.random.default_rng(5)
    for model in (network.backbone, network.box_head, network.mask_head):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                for variable, low in (
                    *((layer.gamma, 0.5), (layer.moving_variance, 0.5)),
                    *((layer.beta, -0.5), (layer.moving_mean, -0.5)),
                ):
                    variable.assign(random.uniform(low, low + 1, variable.shape))
    logits = network.box_head.get_layer("mrcnn_class_logits")
    logits.kernel.assign(ops.convert_to_numpy(logits.kernel) * 20)
    logits.bias.assign([-1e3, 0.0, 0.0])  # no background: something is found, whatever weights are drawn
    rpn = network.rpn.get_layer("rpn_bbox_pred")
    rpn.kernel.assign(ops.convert_to_numpy(rpn.kernel) * 0.01)  # else all boxes would reach to the border
    return network


@pytest.fixture(scope="module")
def parts(network):
    return openvino_parts(network, precision="f32")


@pytest.fixture(scope="module")
def keras_parts(network):
    return compiled_parts(network)


def images(count, shape=SHAPE, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *shape, 3)).astype(np.float32)


def arrays(values):
    return [np.array(ops.convert_to_numpy(value)) for value in keras.tree.flatten(values)]


def assert_near(found, expected):
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == other.shape and mine.dtype == np.float32
        assert np.abs(mine - other).max() <= TOLERANCE * np.abs(other).max()


@pytest.mark.parametrize("shape", [(1, *SHAPE), (2, 64, 64)])
def test_features_of_any_batch_are_those_of_keras(parts, keras_parts, shape):
    batch = images(shape[0], shape[1:])
    assert_near(arrays(parts.features(batch)), arrays(keras_parts.features(batch)))


@pytest.mark.parametrize(("head", "rows", "size"), [("box_head", 60, 7), ("mask_head", MASK_CHUNK, 14)])
def test_heads_are_those_of_keras(network, parts, keras_parts, head, rows, size):
    channels = network.feature_pyramid.outputs[0].shape[-1]
    pooled = np.random.default_rng(2).normal(size=(rows, size, size, channels)).astype(np.float32)
    expected = arrays(getattr(keras_parts, head)(pooled))
    assert_near(arrays(getattr(parts, head)(pooled)), expected)
    assert min(np.ptp(value) for value in expected) > 0.01  # there is something to compare


def test_detections_are_those_of_keras(network, parts, keras_parts):
    mine, keras_only = Detector(network, parts), Detector(network, keras_parts)
    batches = [images(2, seed=seed) for seed in (1, 2)]
    found = [one for batch in batches for one in mine(batch)]  # all before the first is looked at
    expected = [one for batch in batches for one in keras_only(batch)]
    assert all(len(one.scores) > 2 for one in expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.class_ids, other.class_ids)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1)  # a half may round to either side
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(one.masks, other.masks, atol=1e-3)


def test_threads_and_precision_are_those_asked_for(network):
    part = openvino_parts(network, threads=1, precision="f32").mask_head
    channels = network.feature_pyramid.outputs[0].shape[-1]
    part(np.zeros((MASK_CHUNK, 14, 14, channels), np.float32))
    (request,) = part._requests.values()
    compiled = request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_unknown_layers_are_named(network):
    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    other = build_network(network.config)
    head = other.mask_head
    other.mask_head = keras.Model(head.input, Noise()(head.output))
    with pytest.raises(ValueError, match="Noise"):
        openvino_parts(other)


@pytest.mark.skipif(gpu_in_use(), reason="a GPU is faster than OpenVINO")
def test_openvino_is_chosen_by_itself(network):
    assert choose_parts(network)[1].startswith(f"OpenVINO {openvino_version()}, ")


def test_keras_is_used_when_asked_for_or_alone(network, keras_parts, monkeypatch):
    channels = network.feature_pyramid.outputs[0].shape[-1]
    pooled = np.random.default_rng(3).normal(size=(4, 14, 14, channels)).astype(np.float32)
    expected = ops.convert_to_numpy(keras_parts.mask_head(pooled))
    asked_for, runtime = choose_parts(network, keras_only=True)
    monkeypatch.setitem(sys.modules, "openvino", None)  # importing it now fails
    alone, same_runtime = choose_parts(network)
    assert runtime == same_runtime and runtime.startswith("Keras on ")
    for parts in (asked_for, alone):
        np.testing.assert_array_equal(ops.convert_to_numpy(parts.mask_head(pooled)), expected)


@pytest.mark.parametrize(
    ("flags", "runtime"),
    [
        (("nprocs=1",), "Keras on" if gpu_in_use() else "OpenVINO"),
        pytest.param(("-k",), "Keras on", marks=pytest.mark.slow),
    ],
)
def test_the_module_says_what_it_runs_on(project, installed, grass_folder, tiny_model, flags, runtime):
    mapset = f"runtime_{len(flags[0])}"
    create_mapset(project, mapset)
    session = open_session(project, mapset, installed, grass_folder)
    session.variables["PYTHONPATH"] = session.variables["PYTHONPATH"].split(":")[-1]
    session.run("g.region", "n=64", "s=0", "w=0", "e=64", "res=1")
    session.calc("band = int(127 + 127 * sin(row() * 7) * cos(col() * 11))")
    bands = ("band1=band", "band2=band", "band3=band", "confidence=0", "format=json")
    done = session.run("i.ann.maskrcnn.detect", *flags, *bands, f"model={tiny_model}")
    assert f"The network runs on {runtime}" in " ".join(done.stderr.split())
    assert sum(json.loads(done.stdout)["classes"].values()) > 0


LOADING = """
import sys
from maskrcnn.detector import load_detectors
from maskrcnn.model_file import read_model
model = read_model(sys.argv[1])
(detector,), runtime = load_detectors(model, model.config)
detector(__import__("numpy").zeros((1, *model.config.image_shape, 3), "float32"), confidence=0.0)
print(runtime, "with TensorFlow" if "tensorflow" in sys.modules else "alone")
"""


def test_tensorflow_is_not_imported_beside_another_backend(tiny_model):
    pytest.importorskip("torch")
    variables = common_variables() | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(REPOSITORY / "lib")}
    done = warm_python("torch").run(["-c", LOADING, str(tiny_model)], variables)
    assert done.stdout.startswith("OpenVINO") and done.stdout.endswith(" alone\n"), done.stdout + done.stderr


@pytest.fixture
def doubtful(network, monkeypatch):
    """Background 0.6, house 0.4 everywhere; gives the network with either choice of class."""
    logits = network.box_head.get_layer("mrcnn_class_logits")
    kernel, bias = ops.convert_to_numpy(logits.kernel), ops.convert_to_numpy(logits.bias)
    logits.kernel.assign(np.zeros_like(kernel))
    logits.bias.assign(np.log([0.6, 0.4, 1e-9]))

    def choose(background_competes):
        config = replace(network.config, background_competes=background_competes)
        monkeypatch.setattr(network, "config", config)
        monkeypatch.setattr(network, "steps", choose_steps(config))
        return network

    yield choose
    logits.kernel.assign(kernel)
    logits.bias.assign(bias)


@pytest.mark.parametrize("background_competes", [False, True])
def test_what_is_below_the_background_is_found_unless_the_model_is_legacy(
    doubtful, parts, keras_parts, background_competes
):
    network = doubtful(background_competes)
    head = openvino_parts(network, precision="f32").box_head  # whose weights are others now
    for detector in (Detector(network, replace(parts, box_head=head)), Detector(network, keras_parts)):
        for confidence in (0.3, 0.5):
            (found,) = detector(images(1), confidence=confidence)
            assert (len(found.scores) > 0) == (confidence == 0.3 and not background_competes)
            assert set(found.class_ids.tolist()) <= {1}


@pytest.mark.parametrize("background_competes", [False, True])
def test_a_worker_of_a_cluster_chooses_the_class_as_the_model_says(doubtful, background_competes, tmp_path):
    network = doubtful(background_competes)
    save_model(tmp_path / "model.h5", legacy_layout(network), network.config)
    model = read_model(tmp_path / "model.h5")
    settings = DetectionSettings.for_model(model.config, confidence=0.3)
    worker = TileWorker(DetectionWork(config=model.config, settings=settings), 0)
    worker.load(model.path.read_bytes())
    noise = np.random.default_rng(1).normal(128, 40, (*SHAPE, 3)).clip(0, 255).astype(np.uint8)
    tile = Tile(row=0, column=0, height=SHAPE[0], width=SHAPE[1])
    batch = TileBatch(tiles=(tile,), pixels=(noise,), valid=(np.ones(SHAPE, bool),))
    (found,) = worker.detect(batch, None)
    assert bool(found) != background_competes
