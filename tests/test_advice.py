"""How long to train: steps by the ground that there is, told where a run is of another length."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ann.training.advice import LEAST_STEPS, PASSES, advice, usual_steps
from ann.training.settings import TrainingSettings


def image(height, width):
    return SimpleNamespace(height=height, width=width)


def settings(**values):
    return TrainingSettings(name="a", logs=Path("."), **values)


def test_steps_grow_with_the_ground_and_fall_with_the_images_of_a_step():
    assert usual_steps([image(2048, 4096)], (256, 256), 2) == PASSES * 128 / 2
    assert usual_steps([image(2048, 4096)] * 2, (256, 256), 4) == PASSES * 128 / 2
    # an image that is smaller than what the network sees is one piece
    assert usual_steps([image(100, 100)] * 50, (256, 256), 1) == PASSES * 50
    assert usual_steps([image(256, 256)], (256, 256), 1) == LEAST_STEPS


def test_a_run_of_another_length_gets_an_advice_whose_steps_suffice():
    text = advice(settings(epochs=200, steps_per_epoch=3000, usual_steps=1925))
    assert "600,000" in text and "1,925" in text and "epochs=10 steps_per_epoch=193" in text


@pytest.mark.parametrize("values", [{"epochs": 10, "steps_per_epoch": 150}, {"minutes": 20.0}])
def test_a_run_of_about_that_length_or_of_limited_time_gets_none(values):
    assert advice(settings(usual_steps=1925, **values)) == ""
