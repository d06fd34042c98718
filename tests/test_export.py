"""Models for other programs: onnxruntime gives what our own networks give, and the STAC item is valid."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jsonschema
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import referencing
from keras import ops

from ann.data.samples.scaling import scale_pixels
from ann.errors import ModelFileError
from ann.export.exported import check_export, save_export
from ann.inference.tile_rows import TileBatch
from ann.inference.tiles import Tile
from ann.training.seeds import seed_everything
from maskrcnn.config import LEGACY, MaskRCNNConfig
from maskrcnn.export import export_network
from maskrcnn.foreign.variants import CONFIG, DETECTRON2, TORCHVISION_V1
from maskrcnn.instances.pipeline import DetectionSettings, in_tile, network_input
from maskrcnn.network.inference import Detector
from maskrcnn.network.model import build_network
from unet import export as unet_export
from unet.config import UNetConfig
from unet.network import model as unet_model
from unet.prediction import probability_network

SHAPE = (128, 192)
SMALLER, LARGER = (
    {"shorter_side": shorter, "longer_side": longer} for shorter, longer in ((96, 300), (160, 300))
)
VARIANTS = {
    "legacy": LEGACY,
    "torchvision": dataclasses.replace(TORCHVISION_V1, **LARGER),
    "detectron2": dataclasses.replace(DETECTRON2, **LARGER),
    "detectron2, shrunk": dataclasses.replace(DETECTRON2, **SMALLER),
}
# of STAC, its extensions (Apache 2.0) and geojson.org, by their addresses; that of classification is its 2.0
SCHEMAS = json.loads((Path(__file__).parent / "reference" / "stac_schemas.json").read_text())


def lively(network: keras.Model) -> keras.Model:
    """Normalisations that do something."""
    random = np.random.default_rng(5)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable, low in (
                *((layer.gamma, 0.5), (layer.moving_variance, 0.5)),
                *((layer.beta, -0.5), (layer.moving_mean, -0.5)),
            ):
                variable.assign(random.uniform(low, low + 1, variable.shape))
    return network


def maskrcnn(name: str = "legacy"):
    """ResNet18 of three classes with dozens of detections in noise, of scores that differ."""
    seed_everything(5)
    foreign = {} if name == "legacy" else {"anchor_ratios": CONFIG["anchor_ratios"]}
    network = build_network(
        MaskRCNNConfig(
            classes=("house", "big tree", "car"),
            backbone="resnet18",
            image_shape=SHAPE,
            band_mean=(100.0, 90.0, 80.0),
            band_scale=(50.0, 60.0, 70.0),
            pixel_size=0.5,
            band_labels=("red", "green", "blue"),
            anchor_scales=(8, 16, 32, 64, 128),
            proposal_candidates=300,
            proposals_detection=60,
            max_detections=40,
            background_competes=False,
            variant=VARIANTS[name],
            **foreign,
        )
    )
    lively(network)
    logits = network.box_head.get_layer("mrcnn_class_logits")
    logits.kernel.assign(ops.convert_to_numpy(logits.kernel) * 0.1)
    boxes = network.rpn.get_layer("rpn_bbox_pred")
    boxes.kernel.assign(ops.convert_to_numpy(boxes.kernel) * 0.01)  # else all would reach to the border
    return network


def pixels(shape=SHAPE, bands=3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*shape, bands)).astype(np.uint8)


def run(path: Path, image: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime makes of an image (H, W, bands)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image.transpose(2, 0, 1)[None].astype(np.float32)})


def detections(network, image: np.ndarray, confidence: float):
    """Our own, in pixels of the image."""
    tile = Tile(row=0, column=0, height=image.shape[0], width=image.shape[1])
    settings = DetectionSettings.for_model(network.config)
    batch = TileBatch(tiles=(tile,), pixels=(image,), valid=(np.ones(image.shape[:2], bool),))
    images, windows = network_input(batch, settings)
    (found,) = Detector(network)(images, windows, confidence=confidence)
    return in_tile(found, windows[0], tile, settings)


@pytest.mark.parametrize("name", VARIANTS)
def test_detections_are_our_own(tmp_path, name):
    network, image = maskrcnn(name), pixels()
    path, _ = save_export(tmp_path / "model.onnx", export_network(network, 0.1))
    boxes, class_ids, scores, masks = run(path, image)
    expected = detections(network, image, 0.1)
    assert len(scores) > 20 and np.ptp(scores) > 0.05
    np.testing.assert_array_equal(class_ids, expected.class_ids)
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(masks, expected.masks, atol=1e-3)


def test_nothing_found_is_no_rows(tmp_path):
    path, _ = save_export(tmp_path / "model.onnx", export_network(maskrcnn(), 1.0))
    assert [values.shape for values in run(path, pixels())] == [(0, 4), (0,), (0,), (0, 28, 28)]


@pytest.mark.parametrize(
    ("architecture", "classes"),
    [("unet_vgg", ("road",)), ("unet_resnet18", ("road", "water")), ("unet_efficientnet_lite0", ("road",))],
)
def test_probabilities_are_our_own(tmp_path, architecture, classes):
    seed_everything(1)
    config = UNetConfig(
        classes=classes,
        backbone=architecture,
        image_shape=(64, 96),
        band_mean=(100.0, 90.0),
        band_scale=(50.0, 60.0),
    )
    network, image = lively(unet_model.build_network(config)), pixels((64, 96), 2)
    path, item = save_export(tmp_path / "model.onnx", unet_export.export_network(network, config))
    (found,) = run(path, image)
    expected = probability_network(network)(scale_pixels(image, config.band_mean, config.band_scale)[None])
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, atol=1e-3)
    assert not errors(json.loads(item.read_text()))


def errors(item: dict) -> list[str]:
    """What is wrong with a STAC item, by the schemas of STAC 1.1 and of its extension for models."""
    registry = referencing.Registry().with_contents(SCHEMAS.items())
    names = [name for name in SCHEMAS if name.endswith("/item.json") or name in item["stac_extensions"]]
    assert len(names) == 2
    validators = [jsonschema.Draft7Validator(SCHEMAS[name], registry=registry) for name in names]
    return [error.message for validator in validators for error in validator.iter_errors(item)]


def test_the_file_describes_itself_and_the_item_is_valid(tmp_path):
    network = maskrcnn("torchvision")
    path, beside = save_export(tmp_path / "städte 1.onnx", export_network(network, 0.5))
    held = {one.key: json.loads(one.value) for one in onnx.load(path).metadata_props}
    assert held["classes"] == ["house", "big tree", "car"] and held["bands"] == 3
    assert held["band_labels"] == ["red", "green", "blue"]
    assert held["scaling"]["mean"] == [100, 90, 80] and held["scaling"]["scale"] == [50, 60, 70]
    assert (held["pixel_size"], held["tile_size"], held["confidence"]) == (0.5, list(SHAPE), 0.5)
    assert MaskRCNNConfig.from_json(json.dumps(held["description"])) == network.config

    item = json.loads(beside.read_text())
    assert beside.name == "städte 1.json" and not errors(item)
    assert item["assets"]["model"]["href"] == "./städte 1.onnx"
    (taken,) = item["properties"]["mlm:input"]
    assert taken["input"]["shape"] == [1, 3, *SHAPE] and taken["bands"] == ["red", "green", "blue"]
    outputs = item["properties"]["mlm:output"]
    assert [one["name"] for one in outputs] == ["boxes", "class_ids", "scores", "masks"]
    assert [one["title"] for one in outputs[1]["classification:classes"]] == ["house", "big tree", "car"]
    del item["properties"]["mlm:input"]
    item["properties"]["mlm:tasks"] = ["cooking"]
    assert len(errors(item)) >= 2


def test_what_can_t_be_written_is_found_out_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "there.json").write_text("{}")
    for name, said in (
        ("model.h5", "ends with .onnx"),
        ("nowhere/model.onnx", "does not exist"),
        ("there.onnx", "there.json exists already"),
    ):
        with pytest.raises(ModelFileError, match=said):
            check_export(tmp_path / name, overwrite=False)
    check_export(tmp_path / "there.onnx", overwrite=True)
    monkeypatch.setitem(sys.modules, "onnx", None)  # importing it now fails
    with pytest.raises(ModelFileError, match="pip install onnx"):
        check_export(tmp_path / "model.onnx", overwrite=False)


def test_the_module_exports_a_model_without_any_scene(session, installed, tiny_model, tmp_path):
    options = (f"model={tiny_model}", f"export={tmp_path / 'tiny.onnx'}", "confidence=0", "tile_size=128")
    session.run("i.ann.maskrcnn.detect", *options)
    boxes, *_ = run(tmp_path / "tiny.onnx", pixels((128, 128)))
    assert 0 < len(boxes) <= 5 and not errors(json.loads((tmp_path / "tiny.json").read_text()))
    assert session.run("i.ann.maskrcnn.detect", *options, check=False).returncode == 1
