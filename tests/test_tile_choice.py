"""Tiles to detect in: large ones for a model trained on small squares, unless the ground is crowded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ann.weights import save_model
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import read_model
from maskrcnn.preparation import tile_shape
from model_files import small_config, small_network


def image(side, objects_a_side):
    """A square image with objects of 8 x 8 pixels, evenly spread."""
    starts = np.linspace(0, side - 8, objects_a_side).round()
    y, x = (values.ravel() for values in np.meshgrid(starts, starts, indexing="ij"))
    return SimpleNamespace(height=side, width=side, boxes=np.stack([y, x, y + 8, x + 8], axis=1))


@pytest.mark.parametrize(
    ("images", "seen", "expected"),
    [
        ([image(2048, 20)], 256, (1024, 1024)),  # 100 of 400 objects
        ([image(2048, 20), image(2048, 32)], 256, (768, 768)),  # 256 at 1024, 144 at 768
        ([image(256, 5)], 256, (512, 512)),  # as crowded as this, 225 objects at 768
        ([image(2048, 120)], 256, None),
        ([image(2048, 20)], 1024, None),
    ],
)
def test_tiles_are_as_large_as_half_of_their_detections_allow(images, seen, expected):
    assert tile_shape(images, (seen, seen), 0) == expected


def config(**values):
    return MaskRCNNConfig(classes=("roof",), image_shape=(256, 256), **values)


def test_tiles_are_no_larger_than_the_scene_and_no_smaller_than_in_training():
    large = config(tile_shape=(1024, 1024))
    assert large.tile_for(5000, 9000) == (1024, 1024)
    assert large.tile_for(300, 700) == (768, 768)
    assert large.tile_for(50, 60) == (256, 256)
    assert config().tile_for(5000, 9000) == (256, 256)


def test_the_choice_is_kept_in_the_model_file(tmp_path):
    save_model(tmp_path / "a.h5", small_network(), small_config(tile_shape=(768, 768)))
    assert read_model(tmp_path / "a.h5").config.tile_shape == (768, 768)


def test_tiles_that_the_network_can_not_take_are_refused():
    with pytest.raises(ValueError, match="multiples of 64"):
        config(tile_shape=(1000, 1000))
