"""PyTorch's own ways, in a process with that backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_what_is_done_otherwise_on_pytorch_agrees_with_the_portable_way():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pytorch_cases.py"]
    folder = Path(__file__).parents[1]
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
