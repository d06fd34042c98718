"""No looking for garbage while a great many objects are made that stay: it would take a fifth of the time."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Collection, Iterator

from ann.packages import configured_backend


@contextlib.contextmanager
def collecting_paused() -> Iterator[None]:
    """Inside of the context Python's collector of cyclic garbage rests."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def import_keras() -> None:
    """Import Keras and its backend, alone; what is there by then is never looked through for garbage."""
    with collecting_paused(), hidden({"jax", "matplotlib", "pandas"} - {configured_backend()}):
        importlib.import_module("keras")
        gc.freeze()


@contextlib.contextmanager
def hidden(packages: Collection[str]) -> Iterator[None]:
    """Inside of the context packages that nobody has imported yet seem not to be installed.

    Keras imports some if they are there, for its own plots, tables and checkpoints, which nothing here uses:
    nearly a third of the time that a program takes to start.
    """
    packages = set(packages) - set(sys.modules)
    sys.modules.update(dict.fromkeys(packages))
    try:
        yield
    finally:
        for name in packages:
            del sys.modules[name]
