"""Checkpoints of other programs are read without running anything in them, and named if of no use."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ann.errors import ModelFileError
from ann.weights.checkpoint import read_checkpoint
from foreign_weights import old_names, torchvision_weights, write_safetensors
from maskrcnn.foreign import open_model, parse_settings
from maskrcnn.foreign.converting import write_model
from maskrcnn.foreign.recognition import name_other, plain_names
from maskrcnn.foreign.simple_yaml import read_yaml
from maskrcnn.model_file import read_model

torch = pytest.importorskip("torch")

from checkpoint_files import TENSORS, values_in  # noqa: E402
from fuzz_checkpoints import attempt, seeds  # noqa: E402


@pytest.mark.parametrize("zip_form", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": OrderedDict(tensors), "epoch": 3},
        lambda tensors: {
            "state_dict": tensors,
            "lr": {"milestones": Counter({3: 1})},
            "optimizer": {"state": {0: {"momentum": torch.ones(3)}}},
        },
    ],
)
def test_tensors_of_every_kind_are_read_from_both_forms_of_torch(tmp_path, wrap, zip_form):
    torch.save(wrap(TENSORS), tmp_path / "a.pth", _use_new_zipfile_serialization=zip_form)
    found = values_in(tmp_path / "a.pth")
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        expected = tensor.float() if name == "brain" else tensor
        np.testing.assert_array_equal(found[name], expected.numpy())
    assert found["brain"].dtype == np.float32


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_read_from_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 3)) * [1, 2, 3]),
    }
    arrays["long"] = np.random.default_rng(1).random(9000).astype(np.float32)
    with open(tmp_path / "a.pkl", "wb") as file:
        pickle.dump({"model": arrays, "__author__": "somebody"}, file, protocol=protocol)
    found = values_in(tmp_path / "a.pkl")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_safetensors_are_read(tmp_path):
    arrays = {"a": np.float32([[1, 2]]), "b": np.uint16([0x3FC0]), "c": np.float16([2])}
    write_safetensors(tmp_path / "a.safetensors", arrays)
    found = values_in(tmp_path / "a.safetensors")
    assert found["a"].tolist() == [[1, 2]] and found["b"].tolist() == [1.5] and found["c"].tolist() == [2]


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_a_pickle_would_run_is_refused_and_not_run(tmp_path):
    harm = {"model": {"a": torch.ones(2), "b": Harm(tmp_path / "harm")}}
    torch.save(harm, tmp_path / "a.pth")
    torch.save(harm, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(harm["model"]["b"]))
    for name in ("a.pth", "b.pth", "c.pkl"):
        with pytest.raises(ModelFileError, match=r"would run code \('posix\.mkdir'\)"):
            open_model(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_programs_and_archives_are_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    for name, members in (("a.dlpk", ["model.emd", "model.pth"]), ("b.zip", ["readme.txt", "best.pth"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, "x")
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>404")
    for name, said in (
        ("whole.pth", "state_dict"),
        ("script.pt", "TorchScript"),
        ("a.dlpk", "Esri deep learning package"),
        ("b.zip", r"ZIP archive.*best\.pth"),
        ("page.pth", "web page"),
    ):
        with pytest.raises(ModelFileError, match=said):
            open_model(tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zip_form", [True, False])
def test_a_file_that_was_cut_short_is_refused(tmp_path, share, zip_form):
    torch.save({"a": torch.ones(5000)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zip_form)
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match=r"too early|no pickle that can be read"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_safetensors_header_that_lies_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelFileError, match="does not fit its shape"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return seeds(folder), folder / "damaged"


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_ends_in_tensors_or_in_an_error_of_ours(small_files, data):
    files, path = small_files
    result = bytearray(data.draw(st.sampled_from(files)))
    changes = st.tuples(st.integers(0, len(result) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(changes, min_size=1, max_size=4)):
        result[place] = value
    path.write_bytes(result)
    attempt(path)  # raises what is not a ModelFileError


# networks


@pytest.fixture(scope="module")
def tensors():
    return torchvision_weights(classes=3, seed=9)


@pytest.fixture(scope="module")
def shapes(tensors):
    return {name: np.shape(array) for name, array in tensors.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roi_heads.keypoint_head.0.weight": (512, 256, 3, 3)}, "Keypoint R-CNN"),
        ({"roi_heads.box_head.0.fc1.weight": (1024, 12544)}, "Cascade"),
        ({"backbone.body.layer1.0.conv2.weight": (256, 8, 3, 3)}, "ResNeXt"),
        ({"head.classification_head.cls_logits.weight": (9, 256, 3, 3)}, "RetinaNet"),
        ({"backbone.body.layer3.6.conv1.weight": (256, 1024, 1, 1)}, r"3 \+ 4 \+ 7 \+ 3 blocks"),
    ],
)
def test_other_networks_are_named(shapes, changes, said):
    import re

    assert re.search(said, name_other(shapes | changes, "torchvision"))


def test_missing_surplus_and_misshapen_tensors_are_named(tmp_path, tensors):
    name = "roi_heads.mask_head.2.0.weight"
    for changed, said in (
        (
            {key: array for key, array in tensors.items() if key != name},
            rf"1 of its \d+ tensors are missing: {name}",
        ),
        (tensors | {"extra.weight": np.ones(3, np.float32)}, r"1 tensors more than that: extra\.weight"),
        (
            tensors | {name: np.ones((256, 128, 3, 3), np.float32)},
            rf"{name} has the shape \(256, 128, 3, 3\)",
        ),
    ):
        write_safetensors(tmp_path / "a.safetensors", changed)
        with pytest.raises(ModelFileError, match=said):
            open_model(tmp_path / "a.safetensors")


def test_names_of_wrappers_and_earlier_versions_are_those_of_today(tensors):
    old = [f"module.{name}" for name in old_names(tensors)]
    today = {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert set(plain_names(old)) == today


def test_an_imported_model_is_written_as_one_that_describes_itself(tmp_path, tensors):
    write_safetensors(tmp_path / "a.safetensors", tensors)
    (tmp_path / "config.yaml").write_text("classes: [house, tree]\nepsilon: 0\nmin_size: 640 # pixels\n")
    model = open_model(tmp_path / "a.safetensors", parse_settings(["max_size=1000"]))
    assert model.config.classes == ("house", "tree")
    variant = model.config.variant
    assert (variant.epsilon, variant.shorter_side, variant.longer_side) == (0.0, 640, 1000)
    assert any("config.yaml" in note for note in model.notes) and any(
        "(config.yaml, given)" in note for note in model.notes[1:]
    )
    write_model(model, tmp_path / "a.h5")
    written = read_model(tmp_path / "a.h5")
    assert written.config == model.config and list(written.layers) == list(model.layers)
    kernel = tensors["roi_heads.box_head.fc6.weight"]
    np.testing.assert_array_equal(
        written.read("mrcnn_class_conv1", 0)[2, 3, 5], kernel[:, 49 * 5 + 7 * 2 + 3]
    )
    with pytest.raises(ModelFileError, match="exists already"):
        write_model(model, tmp_path / "a.h5")


def test_wrong_settings_are_named(tmp_path, tensors):
    write_safetensors(tmp_path / "a.safetensors", tensors)
    for texts, said in (
        (["colour=red"], "no setting 'colour'"),
        (["epsilon=small"], "expected a number"),
        (["classes=one"], "has 2 classes"),
        (["mean=1/2"], "has 3 bands"),
        (["shorter_side=99999"], "16 to 8192"),
    ):
        with pytest.raises(ModelFileError, match=said):
            open_model(tmp_path / "a.safetensors", parse_settings(texts))


def test_the_part_of_yaml_that_configurations_are_written_in_is_read():
    text = "MODEL:\n  SIZES:\n  - - 32\n  - - 64\n  MEAN: [1.5, 2]\nNAME: 'a: b' # why\nOFF: false\n"
    assert read_yaml(text) == {
        "MODEL": {"SIZES": [[32], [64]], "MEAN": [1.5, 2]},
        "NAME": "a: b",
        "OFF": False,
    }
    for bad in ("a: !!python/object:os.system x", "a: &b 1", "a: [1", "a: |\n  text"):
        with pytest.raises(ValueError, match="line 1"):
            read_yaml(bad)
