"""Values of cells from all flips and turns of a tile."""

import numpy as np
import pytest

from ann.data.samples.augmentation import ORIENTATIONS, orient_image
from ann.inference.turned_cells import turned_network


def biased(images):
    """Values that depend on what lies to the left and above: of images (B, S, S, 2) -> (B, S, S, 1)."""
    left = np.roll(images[..., :1], 1, axis=2)
    above = np.roll(images[..., 1:], 1, axis=1)
    return (images[..., :1] + 2 * left + 4 * above).astype(np.float32)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)


def test_mean_and_deviation_are_those_of_the_eight_turns(images):
    values = turned_network(biased)(images)
    seen = []
    for turn in range(ORIENTATIONS):  # by hand: the place of a cell in each turn
        places = orient_image(np.arange(36).reshape(6, 6), turn)
        found = biased(orient_image(images[1], turn)[None])[0, ..., 0]
        seen.append([found[places == cell][0] for cell in range(36)])
    assert values.shape == (2, 6, 6, 2) and values.dtype == np.float32
    np.testing.assert_allclose(values[1, ..., 0].ravel(), np.mean(seen, axis=0), rtol=1e-5)
    np.testing.assert_allclose(values[1, ..., 1].ravel(), np.std(seen, axis=0), rtol=1e-4)


@pytest.mark.parametrize("turn", range(ORIENTATIONS))
def test_turned_images_give_the_turned_values(images, turn):
    network = turned_network(biased)
    turned = network(np.stack([orient_image(image, turn) for image in images]))
    expected = np.stack([orient_image(one, turn) for one in network(images)])
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-6)


def test_a_network_that_sees_no_difference_has_no_deviation(images):
    values = turned_network(lambda shown: shown.sum(axis=-1, keepdims=True))(images)
    np.testing.assert_allclose(values[..., 0], images.sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(values[..., 1], 0, atol=1e-6)
