"""Which Python packages are missing, before anything heavy is imported, and how to install them."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}  # import names = names for pip
PIP_NAMES = {"PIL": "pillow", "tensorflow": "tensorflow-cpu"}


def configured_backend() -> str:
    """The backend that Keras will use: KERAS_BACKEND, else keras.json, else TensorFlow."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def missing_packages(names: Sequence[str], *, backend: bool = True) -> list[str]:
    """Those of `names` (as imported), and the backend of Keras if asked for, that are not installed."""
    wanted = list(names)
    if backend and configured_backend() in BACKENDS:
        wanted.append(configured_backend())
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def install_hint(missing: Sequence[str]) -> str:
    """What to tell a user who lacks packages."""
    command = f"{sys.executable or 'python3'} -m pip install {' '.join(PIP_NAMES.get(n, n) for n in missing)}"
    text = f"Python package missing: {', '.join(missing)}. Install it with: {command}"
    if set(missing) & set(BACKENDS):
        others = " or ".join(sorted(set(BACKENDS) - set(missing)))
        text += f" (or set the environment variable KERAS_BACKEND to {others}, if that is installed)"
    return text
