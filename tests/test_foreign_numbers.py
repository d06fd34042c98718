"""Imported networks give the numbers of the programs they are from; see `foreign_stages.py`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import foreign_stages

# whole networks are compiled longest elsewhere: there the two cases that between them need every step
ALL = keras.backend.backend() == "torch"


@pytest.fixture(
    scope="module", params=foreign_stages.CASES if ALL else ("torchvision_v1_resize", "detectron2_r50")
)
def case(request):
    return foreign_stages.Case(request.param)


@pytest.mark.parametrize("steps", ["layer_steps", "selection_steps", "whole_steps"])
def test_numbers_are_those_of_the_program(case, steps):
    wrong = [row for row in getattr(foreign_stages, steps)(case) if not row.good]
    assert not wrong


@pytest.mark.skipif(not ALL, reason="the weights alone differ")
def test_an_epsilon_of_zero_is_another_model():
    case = foreign_stages.Case("torchvision_v1", settings={"epsilon": 0.0})
    known = case.known
    c5 = np.asarray(keras.ops.convert_to_numpy(case.network.backbone(case.images)[-1]))[0]
    c5 = c5[np.ix_(known["C5_rows"], known["C5_columns"], known["C5_channels"])]
    assert np.abs(c5 - known["eps0_C5"]).max() < 2e-4 < 0.03 < np.abs(c5 - known["C5"]).max()
