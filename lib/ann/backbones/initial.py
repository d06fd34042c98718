"""What new weights start from: values drawn by chance, or zeros where a file's take their place at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import keras

_undrawn = ContextVar("undrawn", default=False)


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """For networks whose weights will all be loaded, or do not matter: they start from zeros.

    Drawing is half of what making a network takes.
    """
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


def initial(drawn: keras.initializers.Initializer) -> keras.initializers.Initializer:
    """The initialiser of a layer's weights: `drawn`, but inside of `nothing_drawn` zeros."""
    return keras.initializers.Zeros() if _undrawn.get() else drawn
