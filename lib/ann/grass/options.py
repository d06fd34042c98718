"""Options that several modules have."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from ann.errors import AnnError


def positive(text: str, option: str) -> float | None:
    """An optional number above 0."""
    if not text:
        return None
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise AnnError(f"Expected {option} above 0, received {text}")
    return value


def check_outlines(options: Mapping[str, str]) -> tuple[float | None, float | None]:
    """The tolerances generalize= and regularize= of outlines, map units; at most one of them is given."""
    if options["generalize"] and options["regularize"]:
        raise AnnError(
            "generalize= and regularize= make outlines simpler in two ways that don't go together. "
            "Give regularize= for objects with right angles, generalize= for all others"
        )
    return positive(options["generalize"], "generalize"), positive(options["regularize"], "regularize")


def use_threads(count: int) -> None:
    """Limit the threads of the backends, before they are imported; 0 leaves it to them (all cores)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if count:
        for name in (
            "OMP_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
            "OPENBLAS_NUM_THREADS",
        ):
            os.environ[name] = str(count)
