"""The network computes the numbers of the original, stage by stage; see `legacy_stages.py`.

Those of training are in test_legacy_training.py: a file of its own can be run beside this one.
"""

from __future__ import annotations

import json

import keras
import pytest

import legacy_stages
from legacy_weights import legacy_network
from maskrcnn.network.layout import legacy_layout

LAYOUTS = json.loads((legacy_stages.REFERENCE / "legacy_h5_layout.json").read_text())


@pytest.mark.parametrize("stages", ["feature_stages", "selection_stages", "whole_stages"])
def test_numbers_are_those_of_the_original(stages):
    wrong = [row for row in getattr(legacy_stages, stages)() if not row.good]
    assert not wrong


# more of the same blocks, on the backend that builds and runs them soonest
BACKBONES = ["resnet50", *(["resnet101"] if keras.backend.backend() == "torch" else [])]


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    return legacy_network(legacy_stages.reference_config(backbone=request.param, image_shape=(64, 128)))


def test_names_shapes_and_order_of_the_weights_are_those_of_the_legacy_files(network):
    layout = legacy_layout(network)
    ours = [[group, [[name, list(variable.shape)] for name, variable in sets]] for group, sets in layout]
    assert ours == [[group, sets] for group, sets in LAYOUTS[network.config.backbone] if sets]


def test_two_padded_images_that_are_not_square_give_what_numpy_gives(network):
    wrong = [row for row in legacy_stages.numpy_stages(network) if not row.good]
    assert not wrong
