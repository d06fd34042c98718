"""Model files: written, read back, and read as other programs wrote them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ann.errors import ModelFileError
from ann.weights import load_weights, read_training_state, save_model
from ann.weights.loading import adapt_stem
from maskrcnn.config import TRAINED_DETECTION, MaskRCNNConfig
from maskrcnn.model_file import read_model
from model_files import Variable, small_config, small_network, values_of, write_legacy

LAYOUTS = json.loads((Path(__file__).parent / "reference" / "legacy_h5_layout.json").read_text())
HEADS = {"mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"}


def assert_same(layout, expected):
    for key, values in values_of(layout).items():
        np.testing.assert_array_equal(values, expected[key], err_msg=str(key))


def unchanged(layout):
    return not any(variable.assigned for _, variables in layout for _, variable in variables)


# Our own files


def test_a_saved_model_comes_back_with_its_description_and_weights(tmp_path):
    layout, config = small_network(), small_config(pixel_size=0.2, mini_mask_shape=(28, 28))
    save_model(tmp_path / "a.h5", layout, config, {"epoch": 3, "stage": "heads"})
    model = read_model(tmp_path / "a.h5")
    assert model.has_description
    assert model.config == config
    assert model.extra == {"epoch": 3, "stage": "heads"}
    assert (model.backbone, model.bands, model.class_count) == ("resnet50", 3, 3)
    other = small_network(seed=1)
    report = load_weights(other, model)
    assert_same(other, values_of(layout))
    assert report.missing == report.skipped == report.notes == ()
    assert len(report.loaded) == sum(bool(variables) for _, variables in layout)
    report.require_complete(model)


def test_only_files_without_a_description_choose_the_class_as_the_legacy_models(tmp_path):
    legacy = read_model(write_legacy(tmp_path / "legacy.h5", small_network()))
    assert legacy.config.background_competes and legacy.config.detection_nms_threshold == 0.3
    trained = small_config(**TRAINED_DETECTION)
    save_model(tmp_path / "new.h5", small_network(), trained)
    assert read_model(tmp_path / "new.h5").config == trained
    assert not trained.background_competes and trained.detection_nms_threshold == 0.5
    # a description of before has no such field; its threshold is its own
    values = json.loads(small_config().to_json())
    del values["background_competes"]
    before = MaskRCNNConfig.from_json(json.dumps(values))
    assert not before.background_competes and before.detection_nms_threshold == 0.3


def test_one_array_can_be_read_by_layer_and_position(tmp_path):
    layout = small_network()
    save_model(tmp_path / "a.h5", layout, small_config())
    model = read_model(tmp_path / "a.h5")
    np.testing.assert_array_equal(model.read("bn_conv1", 3), values_of(layout)["bn_conv1", 3])
    assert [array.name for array in model.layers["conv1"]] == ["conv1/kernel:0", "conv1/bias:0"]


def test_a_saved_model_is_a_file_in_the_legacy_layout(tmp_path):
    layout = small_network()
    save_model(tmp_path / "a.h5", layout, small_config(), extra_arrays={"step": np.int64(1)})
    with h5py.File(tmp_path / "a.h5") as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
        assert names == [layer for layer, _ in layout]
        assert bytes(file.attrs["backend"]) == b"tensorflow"
        assert bytes(file.attrs["keras_version"]) == b"2.2.4"
        assert set(file) == {*names, "training_state"}
        for layer, variables in layout:
            stored = [name.decode() for name in file[layer].attrs["weight_names"]]
            assert stored == [name for name, _ in variables]
            for name, variable in variables:
                assert file[layer][name].dtype == np.float32
                np.testing.assert_array_equal(file[layer][name][()], variable.values)
        assert json.loads(bytes(file.attrs["maskrcnn"]))["config"]["backbone"] == "resnet50"


def test_training_state_comes_back_as_it_was(tmp_path):
    state = {
        "optimizer/momentum/conv1/kernel": np.random.default_rng(0)
        .normal(size=(7, 7, 3, 4))
        .astype(np.float32),
        "generator": np.array([2**64 - 1, 3], dtype=np.uint64),
        "iterations": np.int64(1200),
        "best": np.float64(-np.inf),
        "nothing": np.zeros((0, 3), dtype=np.int32),
    }
    save_model(tmp_path / "a.h5", small_network(), small_config(), extra_arrays=state)
    back = read_training_state(read_model(tmp_path / "a.h5"))
    assert list(back) == list(state)
    for name, values in state.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)


def test_a_file_without_training_state_gives_an_empty_one(tmp_path):
    save_model(tmp_path / "a.h5", small_network(), small_config())
    assert read_training_state(read_model(tmp_path / "a.h5")) == {}


def test_state_that_is_not_numeric_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(TypeError, match="optimiser"):
        save_model(
            tmp_path / "a.h5", small_network(), small_config(), extra_arrays={"optimiser": np.array(["a"])}
        )
    assert list(tmp_path.iterdir()) == []


def test_texts_beyond_the_limit_of_an_attribute_are_split_and_joined(tmp_path):
    layout = small_network()
    layout += [(f"layer_{number}_{'x' * 80}", []) for number in range(2000)]
    config = MaskRCNNConfig(classes=("building", "tree"), backbone="resnet50")
    extra = {"losses": list(range(40_000))}
    save_model(tmp_path / "a.h5", layout, config, extra)
    with h5py.File(tmp_path / "a.h5") as file:
        assert "layer_names" not in file.attrs and "layer_names2" in file.attrs
        assert "maskrcnn" not in file.attrs and "maskrcnn1" in file.attrs
    model = read_model(tmp_path / "a.h5")
    assert list(model.layers) == [layer for layer, _ in layout]
    assert model.extra == extra


def test_weights_that_are_not_finite_do_not_replace_a_model(tmp_path):
    good = small_network()
    save_model(tmp_path / "a.h5", good, small_config())
    bad = small_network()
    bad[1][1][0][1].values[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelFileError, match=r"conv1.*diverged"):
        save_model(tmp_path / "a.h5", bad, small_config())
    other = small_network(seed=1)
    load_weights(other, read_model(tmp_path / "a.h5"))
    assert_same(other, values_of(good))
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    layout = small_network()
    save_model(tmp_path / "a.h5", layout, small_config())
    before = (tmp_path / "a.h5").read_bytes()
    code = (
        "import os, signal, sys\n"
        "from model_files import *\n"
        "from ann.weights import save_model\n"
        "class Killer(Variable):\n"
        "    def numpy(self): os.kill(os.getpid(), 9)\n"
        "layout = small_network(seed=5)\n"
        "layout[-1][1][0] = (layout[-1][1][0][0], Killer(layout[-1][1][0][1].values))\n"
        "save_model(sys.argv[1], layout, small_config())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], env=environment)
    assert done.returncode == -9
    assert (tmp_path / "a.h5").read_bytes() == before
    save_model(tmp_path / "a.h5", layout, small_config())  # what the dead process left is no obstacle
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_model_is_written_through_a_symbolic_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "best.h5").symlink_to(tmp_path / "real" / "a.h5")
    save_model(tmp_path / "best.h5", small_network(), small_config())
    assert (tmp_path / "best.h5").is_symlink()
    assert read_model(tmp_path / "real" / "a.h5").has_description


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"missing.*can't be written.*directory exists"):
        save_model(tmp_path / "missing" / "a.h5", small_network(), small_config())


def test_a_changed_weight_in_our_file_is_noticed(tmp_path):
    layout = small_network()
    save_model(tmp_path / "a.h5", layout, small_config())
    model = read_model(tmp_path / "a.h5")
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[model.layers["conv1"][0].position + 1] ^= 1
    (tmp_path / "a.h5").write_bytes(data)
    other = small_network(seed=1)
    with pytest.raises(ModelFileError, match=r"damaged.*conv1"):
        load_weights(other, read_model(tmp_path / "a.h5"))
    assert unchanged(other)


def test_a_file_replaced_between_looking_and_loading_is_noticed(tmp_path):
    save_model(tmp_path / "a.h5", small_network(), small_config())
    model = read_model(tmp_path / "a.h5")
    save_model(tmp_path / "a.h5", small_network(seed=1), small_config())
    with pytest.raises(ModelFileError, match="changed"):
        load_weights(small_network(), model)


# Files of other programs


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet101"])
@pytest.mark.parametrize(("classes", "bands"), [(2, 3), (81, 4), (3, 1)])
def test_a_legacy_file_is_recognised_by_its_layers(tmp_path, backbone, classes, bands):
    layout = small_network(backbone=backbone, classes=classes, bands=bands)
    model = read_model(write_legacy(tmp_path / "a.h5", layout))
    assert not model.has_description
    assert (model.config.backbone, model.config.class_count, model.config.bands) == (backbone, classes, bands)
    assert model.config.classes[-1] == f"class_{classes - 1}"
    assert model.config.band_mean[0] == 123.7
    other = small_network(seed=1, backbone=backbone, classes=classes, bands=bands)
    load_weights(other, model)
    assert_same(other, values_of(layout))


def reversed_layout(layout):
    """The same network, its layers listed from the last to the first."""
    return list(reversed(layout))


@pytest.mark.parametrize("root", ["/", "/model_weights"])
@pytest.mark.parametrize("attributes", [True, False])
def test_layers_are_found_under_either_root_with_or_without_lists_of_names(tmp_path, root, attributes):
    layout = small_network()
    path = write_legacy(tmp_path / "a.h5", layout, root=root, attributes=attributes)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = (
            '{"class_name": "Model", "config": {"layers": [{"class_name": "Lambda"}]}}'
        )
        file.create_group("optimizer_weights")["iterations:0"] = np.int64(3)
    other = reversed_layout(small_network(seed=1))
    report = load_weights(other, read_model(path))
    assert_same(other, values_of(layout))
    assert not report.missing


def test_positions_count_and_not_the_names_of_datasets(tmp_path):
    layout = small_network()
    renamed = [
        (
            layer,
            [
                (f"model_1/{layer}/thing_{9 - number}", variable)
                for number, (_, variable) in enumerate(variables)
            ],
        )
        for layer, variables in layout
    ]
    other = small_network(seed=1)
    load_weights(other, read_model(write_legacy(tmp_path / "a.h5", renamed)))
    assert_same(other, values_of(layout))


def test_nested_names_of_later_keras_versions_are_read(tmp_path):
    layout = small_network()
    nested = [
        (
            layer,
            [
                (f"rpn_model/{name}" if layer == "rpn_model" else name, variable)
                for name, variable in variables
            ],
        )
        for layer, variables in layout
    ]
    for attributes in (True, False):
        other = small_network(seed=1)
        load_weights(other, read_model(write_legacy(tmp_path / "a.h5", nested, attributes=attributes)))
        assert_same(other, values_of(layout))


def test_fixed_length_and_chunked_names_and_empty_float_lists_are_read(tmp_path):
    layout = small_network()
    path = write_legacy(tmp_path / "a.h5", layout, attributes=False)
    with h5py.File(path, "a") as file:
        names = np.array([layer.encode() for layer, _ in layout], dtype="S")
        for number, part in enumerate(np.array_split(names, 3)):
            file.attrs[f"layer_names{number}"] = part
        for layer, variables in layout:
            stored = np.array([name.encode() for name, _ in variables]) if variables else np.array([])
            file[layer].attrs["weight_names"] = stored
    other = small_network(seed=1)
    load_weights(other, read_model(path))
    assert_same(other, values_of(layout))


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", "<i4"])
def test_other_numeric_types_are_converted(tmp_path, dtype):
    layout = small_network()
    path = write_legacy(tmp_path / "a.h5", layout)
    values = np.arange(4).astype(dtype)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/bias:0"]
        file["conv1/conv1/bias:0"] = values
    other = small_network(seed=1)
    load_weights(other, read_model(path))
    np.testing.assert_array_equal(values_of(other)["conv1", 1], [0, 1, 2, 3])


def test_a_user_block_before_the_file_shifts_nothing(tmp_path):
    layout = small_network()
    plain = write_legacy(tmp_path / "a.h5", layout)
    with h5py.File(plain) as source, h5py.File(tmp_path / "b.h5", "w", userblock_size=1024) as file:
        for name in source:
            source.copy(name, file)
        file.attrs["layer_names"] = source.attrs["layer_names"]
    other = small_network(seed=1)
    load_weights(other, read_model(tmp_path / "b.h5"))
    assert_same(other, values_of(layout))


def test_missing_layers_keep_their_values_and_unknown_ones_are_ignored(tmp_path):
    layout = small_network()
    stored = [entry for entry in layout if entry[0] != "bn_conv1"]
    stored.append(("another", [("another/kernel:0", Variable(np.ones(5)))]))
    model = read_model(write_legacy(tmp_path / "a.h5", stored))
    other = small_network(seed=1)
    before = values_of(other)
    report = load_weights(other, model)
    assert report.missing == ("bn_conv1",)
    assert report.skipped == ("another",)
    np.testing.assert_array_equal(values_of(other)["bn_conv1", 0], before["bn_conv1", 0])
    with pytest.raises(ModelFileError, match="bn_conv1"):
        report.require_complete(model)
    assert "bn_conv1" in report.summary()


def test_a_backbone_alone_starts_a_training_but_is_no_model(tmp_path):
    layout = small_network()
    backbone = [entry for entry in layout if entry[0].startswith(("conv1", "bn", "res"))]
    model = read_model(write_legacy(tmp_path / "a.h5", backbone))
    assert model.class_count is None
    with pytest.raises(ModelFileError, match="nothing can be detected"):
        model.config  # noqa: B018
    other = small_network(seed=1)
    assert "mrcnn_mask" in load_weights(other, model).missing
    np.testing.assert_array_equal(values_of(other)["conv1", 0], values_of(layout)["conv1", 0])


# What does not fit


def test_other_classes_are_refused_before_anything_changes_and_e_is_suggested(tmp_path):
    model = read_model(write_legacy(tmp_path / "a.h5", small_network(classes=81)))
    other = small_network(seed=1)
    with pytest.raises(ModelFileError, match=r"mrcnn_class_logits.*\(8, 81\).*\(8, 3\).*-e"):
        load_weights(other, model)
    assert unchanged(other)


def test_without_the_heads_other_classes_fit(tmp_path):
    layout = small_network(classes=81)
    other = small_network(seed=1)
    before = values_of(other)
    report = load_weights(other, read_model(write_legacy(tmp_path / "a.h5", layout)), skip_heads=True)
    assert set(report.missing) == set(report.skipped) == HEADS
    for (layer, position), values in values_of(other).items():
        expected = before if layer in HEADS else values_of(layout)
        np.testing.assert_array_equal(values, expected[layer, position])


@pytest.mark.parametrize("skip_heads", [True, False])
def test_another_backbone_is_named_with_the_networks(tmp_path, skip_heads):
    model = read_model(write_legacy(tmp_path / "a.h5", small_network(backbone="resnet101")))
    other = small_network(backbone="resnet50")
    with pytest.raises(ModelFileError, match=r"resnet101.*resnet50"):
        load_weights(other, model, skip_heads=skip_heads)
    assert unchanged(other)


def test_another_shape_or_count_below_the_heads_is_refused(tmp_path):
    layout = small_network()
    layout[2] = ("bn_conv1", [(name, Variable(np.zeros(5))) for name, _ in layout[2][1]])
    with pytest.raises(ModelFileError, match=r"bn_conv1.*\(5,\).*\(4,\)"):
        load_weights(small_network(), read_model(write_legacy(tmp_path / "a.h5", layout)))
    layout[2] = ("bn_conv1", small_network()[2][1][:3])
    with pytest.raises(ModelFileError, match="bn_conv1 has 3 arrays, the network's has 4"):
        load_weights(small_network(), read_model(write_legacy(tmp_path / "b.h5", layout)))


def test_weights_of_a_file_that_are_not_finite_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        layout = small_network()
        layout[-1][1][1][1].values[1] = value
        other = small_network()
        with pytest.raises(ModelFileError, match=r"mrcnn_mask.*not finite"):
            load_weights(other, read_model(write_legacy(tmp_path / "a.h5", layout)))
        assert unchanged(other)


# Other numbers of bands


@pytest.mark.parametrize(("held", "wanted"), [(3, 4), (3, 8), (3, 1), (3, 2), (1, 3), (8, 3), (3, 3)])
def test_an_image_equal_in_all_bands_gets_the_same_answer_from_an_adapted_stem(held, wanted):
    kernel = np.random.default_rng(0).normal(size=(7, 7, held, 64)).astype(np.float32)
    adapted = adapt_stem(kernel, wanted)
    assert adapted.shape == (7, 7, wanted, 64)
    assert adapted.dtype == np.float32
    np.testing.assert_allclose(adapted.sum(axis=2), kernel.sum(axis=2), atol=1e-5)


def test_added_bands_take_the_mean_and_all_are_scaled():
    kernel = np.array([1.0, 2.0, 6.0], dtype=np.float32).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(adapt_stem(kernel, 4).ravel(), [0.75, 1.5, 4.5, 2.25])


def test_of_surplus_bands_the_first_stay_and_take_over_the_others():
    kernel = np.array([1.0, 2.0, 6.0], dtype=np.float32).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(adapt_stem(kernel, 2).ravel(), [4.0, 5.0])


@pytest.mark.parametrize("skip_heads", [True, False])
def test_a_model_of_three_bands_starts_one_of_five_and_says_so(tmp_path, skip_heads):
    layout = small_network()
    other = small_network(seed=1, bands=5)
    report = load_weights(other, read_model(write_legacy(tmp_path / "a.h5", layout)), skip_heads=skip_heads)
    expected = adapt_stem(values_of(layout)["conv1", 0], 5)
    np.testing.assert_array_equal(values_of(other)["conv1", 0], expected)
    assert "3 bands" in report.notes[0] and "5" in report.notes[0] and "mean" in report.notes[0]


# The layout of the real files


def write_sparse(path, layers):
    """A file of the real size whose arrays are holes: all zero, and next to nothing on the disk."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer, _ in layers]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for layer, arrays in layers:
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, shape in arrays:
                below = group.require_group(name.rsplit("/", 1)[0])
                space = h5py.h5s.create_simple(tuple(shape))
                kind = h5py.h5t.IEEE_F32LE
                h5py.h5d.create(below.id, name.rsplit("/", 1)[1].encode(), kind, space, properties)


@pytest.mark.parametrize(("backbone", "megabytes"), [("resnet50", 178), ("resnet101", 254)])
def test_the_layout_of_real_files_is_recognised_and_loaded(tmp_path, backbone, megabytes):
    layers = LAYOUTS[backbone]
    write_sparse(tmp_path / "a.h5", layers)
    model = read_model(tmp_path / "a.h5")
    assert (model.backbone, model.bands, model.class_count) == (backbone, 3, 3)
    assert list(model.layers) == [layer for layer, _ in layers]
    assert sum(array.size for arrays in model.layers.values() for array in arrays) // 10**6 == megabytes
    network = [
        (layer, [(name, Variable(np.zeros(shape))) for name, shape in arrays]) for layer, arrays in layers
    ]
    report = load_weights(network, model)
    assert len(report.loaded) == sum(bool(arrays) for _, arrays in layers)
    assert all(variable.assigned == 1 for _, variables in network for _, variable in variables)
    assert not report.missing and not report.skipped
