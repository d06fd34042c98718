"""The collector of garbage rests for a while only, and what Keras is imported without is there afterwards."""

from __future__ import annotations

import gc
import sys

import pytest

from ann.collecting import collecting_paused, hidden


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


def test_what_is_hidden_is_there_afterwards():
    assert "pty" not in sys.modules
    with hidden({"pty", "gc"}):
        import gc as known

        with pytest.raises(ImportError):
            import pty
    import pty

    assert known is gc and pty.__file__
