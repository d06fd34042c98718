"""Training computes the numbers of the original, stage by stage; see `legacy_stages.py`."""

from __future__ import annotations

import legacy_stages


def test_numbers_are_those_of_the_original():
    wrong = [row for row in legacy_stages.training_stages() if not row.good]
    assert not wrong
