"""ROI pooling: levels, samples, gradients, and the twin paths."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from maskrcnn.network import roi_pooling
from maskrcnn.network.roi_pooling import pool_rois, pyramid_levels
from maskrcnn.network.sampling import sample_axis
from on_backend import gradients, random_boxes, reference, run

SHAPE = (128, 192)


def pool_parts(p2, p3, p4, p5, rois, **options):
    return pool_rois([p2, p3, p4, p5], rois, **options)


def pool(pyramid, rois, size, image_shape=SHAPE):
    return run(pool_parts, *pyramid, rois, pool_size=size, image_shape=image_shape)


def pyramid_of(function, batch=1, channels=2):
    """P2 to P5 with values `function(shape)`."""
    return [
        function((batch, SHAPE[0] // stride, SHAPE[1] // stride, channels)).astype(np.float32)
        for stride in (4, 8, 16, 32)
    ]


def plain_pool(pyramid, roi, level, size):
    """Bin by bin: bilinear between four pixels, 0 outside."""
    features = pyramid[level - 2]
    height, width, channels = features.shape
    pooled = np.zeros((size, size, channels))
    for row in range(size):
        for column in range(size):
            y = (roi[0] + row * (roi[2] - roi[0]) / (size - 1)) * (height - 1)
            x = (roi[1] + column * (roi[3] - roi[1]) / (size - 1)) * (width - 1)
            if not (-1e-3 <= y <= height - 1 + 1e-3 and -1e-3 <= x <= width - 1 + 1e-3):
                continue
            y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = features[top, left] * (1 - x + left) + features[top, right] * (x - left)
            lower = features[bottom, left] * (1 - x + left) + features[bottom, right] * (x - left)
            pooled[row, column] = upper * (1 - y + top) + lower * (y - top)
    return pooled


def test_the_level_follows_the_size_of_the_region():
    side = np.array([8, 79, 80, 158, 159, 316, 317, 900, 5000], np.float32) / 1024
    rois = np.stack([side * 0, side * 0, side, side], axis=-1)
    levels = run(pyramid_levels, rois, image_shape=(1024, 1024))
    np.testing.assert_array_equal(levels, [2, 2, 3, 3, 4, 4, 5, 5, 5])  # halfway between the powers of 2


def test_padding_and_regions_without_area_have_level_2():
    rois = np.array([[0, 0, 0, 0], [0.3, 0.3, 0.3, 0.9], [0.9, 0.3, 0.1, 0.4]], np.float32)
    assert run(pyramid_levels, rois, image_shape=SHAPE).tolist() == [2, 2, 2]


def test_every_level_is_pooled_from_its_own_features():
    pyramid = pyramid_of(np.ones)
    for number, level in enumerate(pyramid):
        level *= number + 2
    rois = np.array([[[0, 0, 0.1, 0.1], [0, 0, 0.6, 0.6], [0.1, 0.1, 0.99, 0.99], [0, 0, 0, 0]]], np.float32)
    pooled = pool(pyramid, rois, 7, (512, 512))
    expected = run(pyramid_levels, rois, image_shape=(512, 512))
    np.testing.assert_allclose(pooled[..., 0].min(axis=(2, 3)), expected, rtol=1e-6)
    np.testing.assert_allclose(pooled[..., 0].max(axis=(2, 3)), expected, rtol=1e-6)
    assert len(set(expected[0])) == 3


@pytest.mark.parametrize("size", [7, 14])
def test_it_samples_between_four_pixels_in_each_image_of_the_batch(size):
    random = np.random.default_rng(1)
    pyramid = pyramid_of(random.standard_normal, batch=2, channels=3)
    rois = np.stack([random_boxes(random, 30), random_boxes(random, 30)])
    rois[0, :3] = [[0, 0, 1, 1], [0.4, 0, 1, 0.1], [-0.2, 0.3, 0.5, 1.4]]  # the last reaches outside
    rois[1, 5:] = 0  # padding
    levels = run(pyramid_levels, rois, image_shape=SHAPE)
    pooled = pool(pyramid, rois, size)
    assert pooled.shape == (2, 30, size, size, 3)
    for image in range(2):
        for index in range(30):
            levels_of_image = [level[image] for level in pyramid]
            expected = plain_pool(levels_of_image, rois[image, index], levels[image, index], size)
            np.testing.assert_allclose(pooled[image, index], expected, atol=2e-4)


def test_outside_of_the_image_is_zero_and_the_border_is_not():
    pyramid = pyramid_of(np.ones)
    rois = np.array([[[0.5, 0.5, 1.5, 1.5], [0.1, 0.1, 1, 1], [1 / 3, 0.1, 1, 0.7]]], np.float32)
    pooled = pool(pyramid, rois, 3)[0, ..., 0]
    np.testing.assert_allclose(pooled[0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(pooled[1:], 1, atol=1e-6)  # though 1 may be passed by a rounding error


def test_a_single_bin_is_sampled_in_the_middle():
    samples = run(
        lambda low, high: tuple(sample_axis(low, high, 11, 1)), np.float32([0.2]), np.float32([0.5])
    )
    assert [part.ravel()[0] for part in samples[:2]] == [3, 4]
    np.testing.assert_allclose(samples[2], [[0.5]], atol=1e-6)


def test_no_regions_give_no_features():
    assert pool(pyramid_of(np.ones), np.zeros((1, 0, 4), np.float32), 7).shape == (1, 0, 7, 7, 2)


def test_gradients_reach_the_pixels_sampled_and_not_the_regions():
    random = np.random.default_rng(2)
    pyramid = pyramid_of(random.standard_normal, batch=2)
    rois = np.stack([random_boxes(random, 6), random_boxes(random, 6)])
    weights = random.standard_normal((2, 6, 5, 5, 2)).astype(np.float32)

    def loss(*arrays):
        pooled = pool_rois(arrays[:4], arrays[4], 5, (512, 512))
        return keras.ops.sum(keras.ops.multiply(pooled, weights))

    *to_pyramid, to_rois = gradients(loss, *pyramid, rois)
    assert not to_rois.any()
    # The pooling is linear in the features: the gradient times the features is the loss.
    total = sum(float((g * level).sum()) for g, level in zip(to_pyramid, pyramid, strict=True))
    expected = float((pool(pyramid, rois, 5, (512, 512)) * weights).sum())
    assert total == pytest.approx(expected, rel=1e-4)
    assert sum(bool(g.any()) for g in to_pyramid) >= 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fast_path_of_pytorch_agrees_with_the_portable_one(dtype):
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch has a path of its own")
    random = np.random.default_rng(3)
    table = random.standard_normal((2, 50, 8)).astype(np.float32)
    indices = random.integers(0, 50, (2, 30, 4)).astype(np.int32)
    weights = random.random((2, 30, 4)).astype(np.float32)
    results = []
    for blend in (roi_pooling._blend, roi_pooling._blend_torch):

        def total(t, blend=blend):
            cast = keras.ops.cast
            return keras.ops.sum(cast(blend(cast(t, dtype), indices, cast(weights, dtype)), "float32") ** 2)

        results.append((run(total, table), gradients(total, table)[0]))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=tolerance)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=tolerance, atol=tolerance * 20)


def test_pooled_features_are_those_of_the_original():
    detect = reference("detect")
    pyramid = [detect[f"P{level}"] for level in (2, 3, 4, 5)]
    levels = run(pyramid_levels, detect["rpn_rois"], image_shape=(256, 256))
    np.testing.assert_array_equal(levels[0], detect["roi_level"])
    pooled = pool(pyramid, detect["rpn_rois"][:, :8], 7, (256, 256))
    np.testing.assert_allclose(pooled, detect["pooled_7"], atol=1e-4)
    pooled = pool(pyramid, detect["det_conf05"][None, :4, :4], 14, (256, 256))
    np.testing.assert_allclose(pooled, detect["pooled_14"], atol=1e-4)
