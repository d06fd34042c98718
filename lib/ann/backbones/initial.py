"""What new weights start from: values drawn by chance, or zeros where a file's take their place at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import keras

_all_loaded = ContextVar("all_loaded", default=False)


@contextlib.contextmanager
def all_weights_loaded() -> Iterator[None]:
    """Inside of the context nothing is drawn, for all weights of the networks that are made will be loaded.

    Drawing is half of what making a network takes.
    """
    token = _all_loaded.set(True)
    try:
        yield
    finally:
        _all_loaded.reset(token)


def initial(drawn: keras.initializers.Initializer) -> keras.initializers.Initializer:
    """The initialiser of a layer's weights: `drawn`, but inside of `all_weights_loaded` zeros."""
    return keras.initializers.Zeros() if _all_loaded.get() else drawn
