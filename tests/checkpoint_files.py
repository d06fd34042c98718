"""Tensors of every kind for small checkpoints, and what is read from such files. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from ann.weights.checkpoint import read_checkpoint
from ann.weights.model_file import ArrayReader, ModelFile
from maskrcnn.model_file import KIND

TENSORS = {
    "plain": torch.arange(6.0).reshape(2, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "part": torch.arange(10.0)[3:7],
    "count": torch.tensor(7),
}


def values_in(path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint."""
    checkpoint = read_checkpoint(path)
    bare = ModelFile(
        path=checkpoint.path,
        layers={},
        backbone="",
        bands=0,
        class_count=None,
        has_description=False,
        kind=KIND,
        stamp=checkpoint.stamp,
    )
    with ArrayReader(bare) as reader:
        return {name: reader.derived_array(stored, name) for name, stored in checkpoint.tensors.items()}
