"""Too little memory is told from other errors, whatever the backend calls it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from ann.training import memory


def test_a_step_that_takes_too_much_memory_is_recognised():
    with pytest.raises(Exception) as caught:
        keras.ops.convert_to_numpy(keras.ops.ones((2**20, 2**20, 2**6)) + 1.0)
    assert memory.is_exhausted(caught.value), repr(caught.value)
    with pytest.raises(MemoryError) as caught:
        np.ones((2**20, 2**20, 2**10))
    assert memory.is_exhausted(caught.value)
    assert not memory.is_exhausted(ValueError("a wrong shape"))
