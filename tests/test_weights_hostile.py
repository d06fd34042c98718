"""Model files that are broken, of another kind, or made to do harm: each ends in an error that says so."""

from __future__ import annotations

import json
import os
import resource
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz_weights
from ann.errors import ModelFileError
from ann.weights import description, inspection, load_weights, model_file, save_model
from maskrcnn.model_file import KIND, read_model
from model_files import Variable, small_config, small_network, values_of, write_legacy

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.h5"))


@pytest.fixture
def legacy(tmp_path):
    return write_legacy(tmp_path / "a.h5", small_network(backbone="resnet18"))


def replace(path, dataset="conv1/conv1/bias:0", **arguments):
    """Put another dataset in the place of one."""
    with h5py.File(path, "a") as file:
        del file[dataset]
        file.create_dataset(dataset, **arguments)


def seconds_of_children():
    """Processor time of finished child processes: unlike the clock, the same on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# Not a model file at all


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"no\.h5 does not exist"):
        read_model(tmp_path / "no.h5")


def test_a_directory_is_no_model(tmp_path):
    with pytest.raises(ModelFileError, match="directory"):
        read_model(tmp_path)


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(ModelFileError, match="regular file"):
        read_model(tmp_path / "a.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_says_so(legacy):
    legacy.chmod(0)
    with pytest.raises(ModelFileError, match="permission"):
        read_model(legacy)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello", "no HDF5"),
        (b"\0" * 10_000, "no HDF5"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\3\4" + b"\0" * 100, "ZIP"),
        (b"\x80\x04cos\nsystem\n(S'touch harm'\ntR.", "no HDF5"),
        (model_file.SIGNATURE, "can't be used"),
        (model_file.SIGNATURE + b"\xff" * 2000, "can't be used"),
    ],
)
def test_another_kind_of_file_is_recognised(tmp_path, content, said):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        read_model(tmp_path / "a.h5")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(legacy, share):
    data = legacy.read_bytes()
    legacy.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match=r"truncated|can't be used"):
        read_model(legacy)


def test_an_hdf5_file_of_another_network_lists_what_it_holds(tmp_path):
    other = [("block1_conv1", [("block1_conv1/kernel:0", Variable(np.ones((3, 3, 3, 64))))])]
    with pytest.raises(ModelFileError, match=r"no Mask R-CNN.*block1_conv1"):
        read_model(write_legacy(tmp_path / "a.h5", other))


def test_an_hdf5_file_without_anything_is_no_model(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    with pytest.raises(ModelFileError, match="no Mask R-CNN"):
        read_model(tmp_path / "a.h5")


# Data that is not plain numbers in this file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": ["text"] * 4}, "no numbers"),
        ({"data": np.zeros(4, dtype=[("a", "f4"), ("b", "f4")])}, "no numbers"),
        ({"shape": (4,), "dtype": h5py.vlen_dtype(np.float32)}, "no numbers"),
        ({"shape": (4,), "dtype": h5py.ref_dtype}, "no numbers"),
        ({"data": np.zeros(4, dtype="V8")}, "no numbers"),
        ({"data": np.zeros(4, dtype=bool)}, "no numbers"),
        ({"data": h5py.Empty("f4")}, "is empty"),
        ({"data": np.zeros((1,) * 20, dtype="f4")}, "20 dimensions"),
        ({"data": np.zeros(4, dtype="f4"), "chunks": (2,)}, "h5repack"),
        ({"data": np.zeros(4, dtype="f4"), "compression": "gzip"}, "h5repack"),
        ({"shape": (1 << 40,), "dtype": "f4"}, "declares 4398046511104 bytes"),
        ({"shape": (1 << 40,), "dtype": "f4", "chunks": (1 << 28,), "compression": "gzip"}, "h5repack"),
        ({"shape": (4,), "dtype": "f4", "external": [("/etc/passwd", 0, 16)]}, "another file"),
    ],
)
def test_only_plain_numbers_in_one_piece_are_let_through(legacy, arguments, said):
    replace(legacy, **arguments)
    with pytest.raises(ModelFileError, match=said):
        read_model(legacy)


def test_a_virtual_dataset_is_refused(legacy):
    virtual = h5py.VirtualLayout(shape=(4,), dtype="f4")
    virtual[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(4,))
    with h5py.File(legacy, "a") as file:
        del file["conv1/conv1/bias:0"]
        file["conv1/conv1"].create_virtual_dataset("bias:0", virtual)
    with pytest.raises(ModelFileError, match="stored elsewhere"):
        read_model(legacy)


@pytest.mark.parametrize("place", ["conv1", "conv1/conv1", "conv1/conv1/bias:0"])
@pytest.mark.parametrize("link", [h5py.ExternalLink("b.h5", "/x"), h5py.SoftLink("/bn_conv1")])
def test_links_to_elsewhere_are_not_followed(legacy, place, link):
    with h5py.File(legacy, "a") as file:
        del file[place]
        file[place] = link
    with pytest.raises(ModelFileError, match="link to another place"):
        read_model(legacy)


def test_a_layer_that_is_a_dataset_and_a_weight_that_is_a_group_are_refused(legacy):
    replace(legacy, dataset="bn_conv1", data=np.zeros(4))
    with pytest.raises(ModelFileError, match="should be a group"):
        read_model(legacy)
    with h5py.File(legacy, "a") as file:
        file["conv1"].attrs["weight_names"] = [b"conv1", b"conv1/bias:0"]
    with pytest.raises(ModelFileError, match="which is a group"):
        read_model(legacy)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([b"conv1", b"conv1"], "twice"),
        ([b"conv1", b"nowhere"], "nowhere.* not in the file"),
        ([b"conv1", b"."], "not in the file"),
        (np.array([[b"conv1"]]), "shape"),
        (np.arange(3), "not text"),
        (np.array([b"a"] * 20_000), "shape"),
    ],
)
def test_impossible_lists_of_layers_are_refused(legacy, names, said):
    with h5py.File(legacy, "a") as file:
        file.attrs["layer_names"] = names
    with pytest.raises(ModelFileError, match=said):
        read_model(legacy)


def test_a_group_that_contains_itself_ends(tmp_path):
    path = write_legacy(tmp_path / "a.h5", small_network(backbone="resnet18"), attributes=False)
    with h5py.File(path, "a") as file:
        file["conv1/again"] = file["conv1"]
    with pytest.raises(ModelFileError, match="deeper"):
        read_model(path)


def test_datasets_whose_order_nobody_knows_are_refused(tmp_path):
    path = write_legacy(tmp_path / "a.h5", small_network(backbone="resnet18"), attributes=False)
    with h5py.File(path, "a") as file:
        file["conv1/conv1/other"] = np.zeros(3)
    with pytest.raises(ModelFileError, match="weight_names"):
        read_model(path)


def test_one_array_under_many_names_does_not_multiply_memory(legacy):
    with h5py.File(legacy, "a") as file:
        state = file.create_group("training_state")
        state["0"] = np.zeros(5000)
        for number in range(1, 200):
            state[str(number)] = state["0"]
        state.attrs["names"] = [str(number) for number in range(200)]
    with pytest.raises(ModelFileError, match="larger than the file"):
        read_model(legacy)


def test_an_attribute_that_unfolds_to_gigabytes_is_refused(legacy):
    """3000 strings, all pointing to the same megabyte: 3 GB from a file of 1 MB."""
    length, count = 1_000_003, 3000
    with h5py.File(legacy, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names"] = ["x" * length] + ["y" * 77_777] * 3 + ["z"] * (count - 4)
    data = bytearray(legacy.read_bytes())
    start = data.index(struct.pack("<I", length))
    data[start : start + 16 * count] = data[start : start + 16] * count
    legacy.write_bytes(data)
    started = seconds_of_children()
    with pytest.raises(ModelFileError, match=r"MemoryError|memory|damaged|longer than"):
        read_model(legacy)
    assert seconds_of_children() - started < 15


# Descriptions


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"classes": "ab"},
        {"classes": [1, 2]},
        {"classes": ["a\nb", "c"]},
        {"classes": ["x" * 1000, "y"]},
        {"backbone": "vgg"},
        {"backbone": None},
        {"image_shape": [64, 1 << 40]},
        {"image_shape": "64"},
        {"image_shape": [64, 64.0]},
        {"band_mean": "abc"},
        {"band_mean": [float("nan")] * 3},
        {"band_scale": [[1], [2], [3]]},
        {"proposals_training": 10**15},
        {"max_detections": -1},
        {"max_detections": True},
        {"anchor_scales": [1]},
        {"detection_nms_threshold": "0.3"},
        {"mini_mask_shape": [1 << 30, 1 << 30]},
        {"pixel_size": -1},
        {"weight_decay": 10**400},
    ],
)
def test_a_description_that_no_model_has_is_refused(change):
    values = json.loads(description.write_description(small_config(), None, {}))
    values["config"] |= change
    with pytest.raises(ModelFileError, match="description"):
        description.read_description(KIND, json.dumps(values))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", "[" * 100_000, '{"format": 1}', '{"format": 1, "config": []}']
)
def test_a_description_that_is_no_description_is_refused(text):
    with pytest.raises(ModelFileError, match="description is damaged"):
        description.read_description(KIND, text)


def test_a_description_of_a_newer_version_asks_for_an_update():
    with pytest.raises(ModelFileError, match="Update"):
        description.read_description(KIND, json.dumps({"format": 2}))


@pytest.mark.parametrize("kinds", [{"classes": 4}, {"bands": 5}, {"backbone": "resnet101"}])
def test_a_description_of_another_network_than_the_layers_is_refused(tmp_path, kinds):
    save_model(tmp_path / "a.h5", small_network(), small_config(**kinds))
    with pytest.raises(ModelFileError, match="contradicts itself"):
        read_model(tmp_path / "a.h5")


def test_both_sides_call_the_attributes_the_same():
    assert (inspection.DESCRIPTION, inspection.STATE_GROUP) == (
        description.DESCRIPTION,
        description.STATE_GROUP,
    )


# Chance


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    path = write_legacy(folder / "a.h5", fuzz_weights.small_layout())
    data = path.read_bytes()
    return data, fuzz_weights.weights_bytes(data, folder).tolist(), folder / "b.h5"


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_ends_in_a_model_or_in_an_error_of_ours(small_file, data):
    content, places, path = small_file
    changes = st.tuples(st.sampled_from(places), st.integers(0, 255))
    result = bytearray(content)
    for place, value in data.draw(st.lists(changes, min_size=1, max_size=4)):
        result[place] = value
    path.write_bytes(result)
    inspect = model_file.inspect
    model_file.inspect = fuzz_weights.inspect_in_child
    try:
        fuzz_weights.attempt(path)  # raises what is not a ModelFileError
    finally:
        model_file.inspect = inspect


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_fuzzing_found_ends_in_an_error_in_time(path):
    started = seconds_of_children()
    network = small_network(backbone="resnet18")
    before = values_of(network)
    with pytest.raises(ModelFileError, match="Copy or download it again"):
        load_weights(network, read_model(path))
    assert seconds_of_children() - started < 15
    for key, values in values_of(network).items():
        np.testing.assert_array_equal(values, before[key])
