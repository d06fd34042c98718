"""The network put together: its parts, training and compiled detection, on small images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from ann.backbones.initial import nothing_drawn
from ann.training.seeds import seed_everything
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.anchors import surrounding_cells
from maskrcnn.network.inference import MASK_CHUNK, DenseParts, Detector, compiled_parts
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.model import build_network, pyramid_cells
from maskrcnn.network.region_proposal import propose_at
from maskrcnn.network.roi_pooling import flatten_pyramid
from maskrcnn.network.stages import set_trainable
from maskrcnn.network.training import LOSSES, TrainingNetwork, anchor_count
from on_backend import gradients

SHAPE = (64, 128)


def small_config(**changes) -> MaskRCNNConfig:
    values = {
        "backbone": "resnet18",
        "image_shape": SHAPE,
        "anchor_scales": (8, 16, 32, 64, 128),
        "proposal_candidates": 300,
        "proposals_training": 60,
        "proposals_detection": 50,
        "max_detections": 40,
        "rois_per_image": 12,
        "anchors_per_image": 32,
        "max_instances": 3,
        **changes,
    }
    return MaskRCNNConfig(classes=("house", "tree"), **values)


def small_network(**changes):
    seed_everything(3)
    return build_network(small_config(**changes))


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def parts(network):
    return compiled_parts(network)


@pytest.fixture(scope="module")
def detector(network, parts):
    return Detector(network, parts)


# JAX compiles every operation of an uncompiled call on its own, and whole networks for long: minutes
not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="slow on JAX, and the backend has no say in it"
)


def random_images(count=2, bands=3, shape=SHAPE):
    return np.random.default_rng(1).normal(size=(count, *shape, bands)).astype(np.float32)


def training_batch(config, instances=True):
    """Two images; with instances, a bright house in the first and a house and a tree in the second."""
    random = np.random.default_rng(2)
    batch = {
        "images": random_images(bands=config.bands) * 0.1,
        "class_ids": np.zeros((2, 3), np.int32),
        "boxes": np.zeros((2, 3, 4), np.float32),
        "masks": np.zeros((2, 3, *SHAPE), np.uint8),
        "anchor_noise": random.random((2, anchor_count(config)), dtype=np.float32),
        "roi_noise": random.random((2, config.roi_candidates), dtype=np.float32),
    }
    truth = [(0, 0, 1, (10, 20, 40, 60)), (1, 0, 1, (30, 5, 60, 40)), (1, 1, 2, (5, 70, 45, 120))]
    for image, slot, class_id, (y1, x1, y2, x2) in truth if instances else []:
        batch["images"][image, y1:y2, x1:x2] += class_id
        batch["class_ids"][image, slot] = class_id
        batch["boxes"][image, slot] = y1, x1, y2, x2
        batch["masks"][image, slot, y1:y2, x1:x2] = 1
    return batch


def variables_of(network):
    return {name: variable for _, datasets in legacy_layout(network) for name, variable in datasets}


def values_of(network):
    return {name: ops.convert_to_numpy(variable) for name, variable in variables_of(network).items()}


# Parts


def test_resnet18_weights_are_named_in_the_style_of_the_legacy_files(network):
    names = [group for group, _ in legacy_layout(network)]
    assert names[:6] == [
        "conv1",
        "bn_conv1",
        "res2a_branch2a",
        "bn2a_branch2a",
        "res2a_branch2b",
        "bn2a_branch2b",
    ]
    assert "res3a_branch1" in names and "res2a_branch1" not in names and len(names) == len(set(names))


@not_on_jax
def test_parts_have_the_stated_shapes_for_any_number_of_bands():
    network = small_network(band_mean=(0.0,) * 5, band_scale=(1.0,) * 5)
    pyramid, logits, deltas = network(random_images(bands=5))
    assert [tuple(level.shape) for level in pyramid] == [
        (2, 64 // stride, 128 // stride, 128) for stride in (4, 8, 16, 32, 64)
    ]
    count = anchor_count(network.config)
    assert logits.shape == (2, count, 2) and deltas.shape == (2, count, 4)
    assert network.anchors().shape == (count, 4)
    rois = ops.convert_to_tensor(np.random.default_rng(0).random((2, 5, 4), dtype=np.float32))
    logits, deltas = network.classify(pyramid_cells(pyramid), rois, SHAPE)
    assert logits.shape == (2, 5, 3) and deltas.shape == (2, 5, 3, 4)
    masks = ops.convert_to_numpy(network.segment(pyramid_cells(pyramid), rois, SHAPE))
    assert masks.shape == (2, 5, 28, 28, 3) and masks.min() >= 0 and masks.max() <= 1


def test_a_new_network_gives_finite_values_of_moderate_size(parts):
    for values in parts.features(random_images()):
        assert np.abs(ops.convert_to_numpy(values)).max() < 100


# Stages of training


def trained_layers(network):
    return {name.split("/")[0] for name, variable in variables_of(network).items() if variable.trainable}


def test_stages_train_their_layers(network):
    set_trainable(network, "heads")
    heads = trained_layers(network)
    assert {name[:3] for name in heads} == {"fpn", "rpn", "mrc"}
    set_trainable(network, "4+")
    assert {name[:4] for name in trained_layers(network) - heads} == {
        "res4",
        "bn4a",
        "bn4b",
        "res5",
        "bn5a",
        "bn5b",
    }
    set_trainable(network, "all")
    assert trained_layers(network) == {name.split("/")[0] for name in variables_of(network)}
    with pytest.raises(ValueError, match=r"heads, 4\+, all, received '3\+'"):
        set_trainable(network, "3+")


@not_on_jax
def test_single_anchors_get_what_the_proposal_head_gives_for_all(network):
    pyramid, *expected = network(random_images())
    anchors = np.random.default_rng(4).permuted(np.tile(np.arange(expected[0].shape[1]), (2, 1)), axis=1)
    around = ops.convert_to_tensor(surrounding_cells(SHAPE))
    cells = flatten_pyramid(pyramid)
    found = propose_at(network.rpn, cells, around, ops.convert_to_tensor(anchors, dtype="int32"))
    for values, whole in zip(found, expected, strict=True):
        whole = np.take_along_axis(ops.convert_to_numpy(whole), anchors[..., None], axis=1)
        np.testing.assert_allclose(ops.convert_to_numpy(values), whole, rtol=1e-4, atol=1e-5)


@not_on_jax
def test_labelled_boxes_are_among_the_regions_to_learn_from(network):
    batch = training_batch(network.config)
    _, logits, deltas = network(batch["images"])
    targets = TrainingNetwork(network).targets(batch, logits, deltas)
    rois, class_ids = (ops.convert_to_numpy(values) for values in (targets.rois, targets.class_ids))
    boxes = batch["boxes"] / np.array([*SHAPE, *SHAPE], np.float32)
    for image, slot in ((0, 0), (1, 0), (1, 1)):
        same = np.abs(rois[image] - boxes[image, slot]).max(axis=-1) < 0.01
        assert class_ids[image][same].tolist() == [batch["class_ids"][image, slot]]


@not_on_jax
def test_stored_statistics_are_moved_only_when_batch_normalisation_is_trained():
    network = small_network()  # its own: the statistics are moved
    training, batch = TrainingNetwork(network), training_batch(network.config)
    name = "bn3a_branch2a/moving_mean:0"
    start = values_of(network)[name]
    for train_batch_norm in (False, True):
        set_trainable(network, "all", train_batch_norm)
        training(batch, training=True)
        assert train_batch_norm == bool((values_of(network)[name] != start).any())
    moved = values_of(network)[name]
    training(batch, training=False)
    np.testing.assert_array_equal(values_of(network)[name], moved)


# Training


@pytest.fixture(scope="module")
def trained():
    """A network after some steps on one batch, its weights before, and the losses of each step."""
    network = small_network()
    set_trainable(network, "all")
    training = TrainingNetwork(network)
    training.compile(
        keras.optimizers.SGD(0.02, momentum=0.9, global_clipnorm=5.0),
        jit_compile=keras.backend.backend() == "jax",  # on TensorFlow, XLA compiles longer than it saves
    )
    before, batch = values_of(network), training_batch(network.config)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return (batch,)

    history = training.fit(Batches(), epochs=2, verbose=0).history
    return training, before, history


def test_fit_reports_each_loss_and_they_add_up(trained):
    _, _, history = trained
    assert set(history) == {"loss", *LOSSES}
    np.testing.assert_allclose(np.sum([history[name] for name in LOSSES], axis=0), history["loss"], rtol=1e-4)
    assert np.isfinite(history["loss"]).all() and history["loss"][1] < history["loss"][0]


def test_all_weights_but_the_stored_statistics_are_trained(trained):
    training, before, _ = trained
    after = values_of(training.network)
    still = {name for name in before if np.array_equal(before[name], after[name])}
    # gammas of 1 before a residual that starts at 0 hardly feel the first steps
    assert {name for name in still if "gamma" not in name} == {name for name in before if "moving" in name}
    assert "bn_conv1/gamma:0" not in still


def test_an_image_without_instances_trains_on_background_alone(trained):
    training, _, _ = trained
    logs = training.test_on_batch(training_batch(training.network.config, instances=False), return_dict=True)
    assert logs["rpn_class_loss"] > 0 and logs["mrcnn_class_loss"] > 0
    assert logs["rpn_box_loss"] == logs["mrcnn_box_loss"] == logs["mrcnn_mask_loss"] == 0


def test_images_of_another_size_than_the_models_are_refused(network):
    batch = training_batch(network.config)
    batch["images"] = batch["images"][:, :, :64]
    with pytest.raises(ValueError, match=r"\(64, 128\).*\(2, 64, 64, 3\)"):
        TrainingNetwork(network)(batch)


def test_no_gradient_flows_through_the_targets_into_the_proposals(network, parts):
    # the legacy models let the box head's loss move the proposals that it was compared with
    training, batch = TrainingNetwork(network), training_batch(network.config)
    *_, logits, deltas = parts.features(batch["images"])
    batch = {name: ops.convert_to_tensor(values) for name, values in batch.items()}

    def summed(logits, deltas):
        targets = training.targets(batch, logits, deltas)
        return sum(ops.sum(ops.cast(values, "float32")) for values in targets) + 0 * ops.sum(logits + 1)

    for gradient in gradients(summed, *(ops.convert_to_numpy(values) for values in (logits, deltas))):
        assert not gradient.any()


# Detection


def test_detections_are_sorted_and_lie_inside_of_the_window(detector):
    windows = np.float32([[0, 0, 64, 128], [16, 32, 48, 96]])
    for found, (y1, x1, y2, x2) in zip(detector(random_images(), windows), windows, strict=True):
        assert len(found.boxes) > 0 and (np.diff(found.scores) <= 0).all()
        assert (found.boxes >= [y1, x1, y1, x1]).all() and (found.boxes <= [y2, x2, y2, x2]).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert set(found.class_ids) <= {1, 2}
        assert found.boxes.dtype == found.class_ids.dtype == np.int32
        assert found.scores.dtype == found.masks.dtype == np.float32


def test_masks_are_those_of_the_class_whatever_the_chunks(network, parts, detector):
    images = random_images()
    *pyramid, _, _ = parts.features(images)
    found = detector(images)
    assert sum(len(tile.scores) for tile in found) > MASK_CHUNK  # so that a chunk holds two images
    rois = np.zeros((2, max(len(tile.boxes) for tile in found), 4), np.float32)
    for image, tile in enumerate(found):  # rounded to pixels, so masks differ a little
        rois[image, : len(tile.boxes)] = (tile.boxes - [0, 0, 1, 1]) / [63, 127, 63, 127]
    masks = network.segment(pyramid_cells(pyramid), ops.convert_to_tensor(rois), SHAPE)
    for all_masks, tile in zip(ops.convert_to_numpy(masks), found, strict=True):
        places = np.arange(len(tile.boxes))
        own = all_masks[places, :, :, tile.class_ids]
        others = all_masks[places, :, :, 3 - tile.class_ids]
        assert np.abs(own - tile.masks).mean() < 0.3 * np.abs(others - tile.masks).mean()


def test_an_image_is_detected_alike_alone_and_in_a_batch(detector):
    images = random_images()
    for alone, together in zip(
        (detector(images[i : i + 1])[0] for i in (0, 1)), detector(images), strict=True
    ):
        np.testing.assert_array_equal(alone.boxes, together.boxes)
        np.testing.assert_array_equal(alone.class_ids, together.class_ids)
        np.testing.assert_allclose(alone.masks, together.masks, atol=1e-5)


def test_confidence_leaves_out_the_lower_scores(detector):
    images = random_images()
    everything = detector(images)[0]
    threshold = float(everything.scores[3])
    some = detector(images, confidence=threshold)[0]
    np.testing.assert_array_equal(some.scores, everything.scores[everything.scores >= threshold])
    for nothing in detector(images, confidence=1.1):
        shapes = [
            values.shape for values in (nothing.boxes, nothing.class_ids, nothing.scores, nothing.masks)
        ]
        assert shapes == [(0, 4), (0,), (0,), (0, 28, 28)]


@not_on_jax
def test_other_tile_sizes_than_the_models_are_detected_in(detector):
    (found,) = detector(random_images(1, shape=(128, 64)))
    assert len(found.boxes) and found.boxes[:, 2].max() > 64 and found.boxes[:, 3].max() <= 64


def test_another_runtime_may_run_the_dense_parts(network, parts, detector):
    shapes = []

    def foreign(part):
        def run(inputs):
            shapes.append(inputs.shape)
            outputs = part(np.asarray(ops.convert_to_numpy(inputs)))
            return keras.tree.map_structure(ops.convert_to_numpy, outputs)

        return run

    others = DenseParts(*(foreign(part) for part in (parts.features, parts.box_head, parts.mask_head)))
    for ours, theirs in zip(
        detector(random_images()), Detector(network, others)(random_images()), strict=True
    ):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-6)
    assert {tuple(shape) for shape in shapes} == {
        (2, 64, 128, 3),
        (100, *network.box_head.input_shape[1:]),
        (MASK_CHUNK, *network.mask_head.input_shape[1:]),
    }


# Half precision


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def losses_in_training(training, batch):
    """Sums and counts by name; on JAX compiled as a whole, see above."""
    if keras.backend.backend() != "jax":
        return training(batch, training=True)
    import jax

    @jax.jit
    def apply(trainable, other, batch):
        return training.stateless_call(trainable, other, batch, training=True)[0]

    variables = (training.trainable_variables, training.non_trainable_variables)
    return apply(*([variable.value for variable in part] for part in variables), batch)


@not_on_jax
def test_bfloat16_computes_boxes_and_losses_in_float32(network, detector, bfloat16):
    half = small_network()
    for name, variable in variables_of(half).items():
        assert variable.dtype == "float32"
        variable.assign(variables_of(network)[name])
    half_parts = compiled_parts(half)
    *pyramid, logits, deltas = half_parts.features(random_images())
    assert {keras.backend.standardize_dtype(level.dtype) for level in pyramid} == {"bfloat16"}
    assert {keras.backend.standardize_dtype(values.dtype) for values in (logits, deltas)} == {"float32"}
    losses = losses_in_training(TrainingNetwork(half), training_batch(half.config))
    exact = losses_in_training(TrainingNetwork(network), training_batch(network.config))
    for name in ("rpn_class_loss", "rpn_box_loss", "weight_loss"):
        np.testing.assert_allclose(
            *(ops.convert_to_numpy(values[name][0]) for values in (losses, exact)), rtol=0.02
        )
    for found, expected in zip(
        Detector(half, half_parts)(random_images()), detector(random_images()), strict=True
    ):
        assert found.masks.dtype == np.float32
        np.testing.assert_allclose(found.scores[:5], expected.scores[:5], atol=0.02)


def test_a_network_that_is_loaded_draws_no_weights():
    def kernels(network):
        return {weight.path for weight in network.weights if np.any(ops.convert_to_numpy(weight))}

    with nothing_drawn():
        empty = build_network(small_config())
    drawn = {path for path in kernels(build_network(small_config())) if path.endswith("/kernel")}
    assert len(drawn) > 40 and not drawn & kernels(empty)
