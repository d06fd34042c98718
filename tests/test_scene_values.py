"""A scene whose values are far from those of training is noticed, one that is only dark or bright is not."""

import numpy as np
import pytest

from ann.inference.scene import ArrayScene
from ann.inference.values import sample_values, unlike_training

LEGACY = ((123.7, 116.8, 103.9), (1.0, 1.0, 1.0))
MEASURED = ((120.0, 115.0, 100.0), (55.0, 52.0, 50.0))
REFLECTANCE = ((0.1, 0.12, 0.09), (0.05, 0.05, 0.06))
SIXTEEN_BIT = ((1200.0, 1100.0, 900.0), (500.0, 400.0, 450.0))
UNSCALED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def photo(brightness=1.0):
    pixels = np.random.default_rng(5).normal(115, 50, (300, 400, 3)).clip(1, 255)
    return (pixels * brightness).clip(0, 255).round().astype(np.uint8)


def found(pixels, model, valid=None):
    return unlike_training(sample_values(ArrayScene(pixels, valid)), *model)


@pytest.mark.parametrize("model", [LEGACY, MEASURED])
@pytest.mark.parametrize("brightness", [0.2, 0.5, 1.0, 1.8])
def test_photos_of_any_light_are_like_those_of_training(model, brightness):
    assert found(photo(brightness), model) is None


@pytest.mark.parametrize("model", [LEGACY, MEASURED])
@pytest.mark.parametrize(
    "pixels",
    [
        photo().astype(np.uint16) * 257,
        photo() / 255,
        photo().astype(np.uint16) * 16 + 3000,
        -np.ones((300, 400, 3)) * 9999,
        np.where(np.arange(300)[:, None, None] < 60, -9999.0, photo()),  # a fifth is fill without a mark
    ],
    ids=["16 bit", "0 to 1", "12 bit", "fill only", "fill"],
)
def test_another_type_of_data_is_noticed(model, pixels):
    text = found(pixels, model)
    assert "band 1 has" in text and f"trained on {model[0][0]:.4g} on average" in text


def test_8_bit_given_to_models_of_other_data_is_noticed():
    assert found(photo(), SIXTEEN_BIT) and found(photo(), REFLECTANCE)
    assert found(photo().astype(np.float32) * 10, SIXTEEN_BIT) is None
    assert found(photo() / 1000, REFLECTANCE) is None


def test_one_band_of_several_is_enough_and_is_named():
    pixels = photo().astype(np.uint16)
    pixels[..., 2] *= 100
    assert found(pixels, MEASURED).startswith("band 3 has")


def test_a_narrow_training_set_notices_an_offset():
    assert found(np.full((50, 50, 1), 700.0), ((500.0,), (20.0,)))
    assert found(np.full((50, 50, 1), 560.0), ((500.0,), (20.0,))) is None


def test_cells_without_data_and_models_without_scaling_say_nothing():
    pixels = photo().astype(np.float32)
    pixels[:, :200] = 1e6
    valid = np.ones((300, 400), bool)
    valid[:, :200] = False
    assert found(pixels, MEASURED, valid) is None
    assert found(pixels, MEASURED, np.zeros((300, 400), bool)) is None
    assert found(pixels, UNSCALED) is None


def test_the_sample_is_bounded_and_spread_over_the_scene():
    rows = np.arange(1000.0)[:, None, None].repeat(800, axis=1)
    values = sample_values(ArrayScene(rows))
    assert values.shape == (25 * 32 * 32, 1) and values.min() < 200 and values.max() > 800
    assert sample_values(ArrayScene(np.ones((3, 5, 2)))).shape == (15, 2)
