"""The collector of garbage rests for a while only."""

from __future__ import annotations

import gc

import pytest

from ann.collecting import collecting_paused


def test_the_collector_works_again_even_after_an_error():
    with pytest.raises(ValueError), collecting_paused():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()


def test_a_collector_that_rested_before_goes_on_resting():
    with collecting_paused():
        with collecting_paused():
            pass
        assert not gc.isenabled()
