"""Model files: one HDF5 file in the legacy layer layout, with a description of the model beside.

A file from elsewhere is data, not code: `read_model` reads numbers and text from it and refuses the rest.
"""

from __future__ import annotations

from ann.weights.loading import LoadReport, load_weights
from ann.weights.model_file import ModelFile, StoredArray, read_model, read_training_state
from ann.weights.saving import save_model

__all__ = [
    "LoadReport",
    "ModelFile",
    "StoredArray",
    "load_weights",
    "read_model",
    "read_training_state",
    "save_model",
]
