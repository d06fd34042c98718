"""Where all that is drawn by chance begins."""

from __future__ import annotations

import sys

import keras


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, Keras and its backend.

    Keras seeds TensorFlow too where it is installed, and imports it for that, which takes seconds and half a
    gigabyte: with another backend it is not found meanwhile.
    """
    hidden = keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None  # importing it fails
    try:
        keras.utils.set_random_seed(seed)
    finally:
        if hidden:
            del sys.modules["tensorflow"]
