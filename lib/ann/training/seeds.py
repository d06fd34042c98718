"""Where all that is drawn by chance begins."""

from __future__ import annotations

import keras

from ann.packages import hidden


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, Keras and its backend.

    Keras seeds TensorFlow too where it is installed, and imports it for that, which takes seconds and half a
    gigabyte: with another backend it is not found meanwhile.
    """
    with hidden({"tensorflow"} - {keras.backend.backend()}):
        keras.utils.set_random_seed(seed)
