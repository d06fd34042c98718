#!/usr/bin/env python3
"""Print how far the network is from the original's numbers, stage by stage, as a Markdown table.

usage: legacy_parity.py [BACKEND ...]

Each backend (tensorflow, jax and torch by default) runs in a process of its own, a column for each. Beside
the ResNet50 numbers of the original, the dense part of both ResNets is compared with NumPy in double
precision.
"""

from __future__ import annotations

import sys

from parity import compare_backends


def measure() -> list[dict]:
    """All stages on the configured backend."""
    import legacy_stages
    from legacy_weights import legacy_network

    rows = []
    for stages in ("feature_stages", "selection_stages", "whole_stages", "training_stages"):
        rows += getattr(legacy_stages, stages)()
    for backbone in ("resnet50", "resnet101"):
        config = legacy_stages.reference_config(backbone=backbone, image_shape=(64, 128))
        rows += legacy_stages.numpy_stages(legacy_network(config))
    return [{**vars(row), "good": row.good, "difference": float(row.difference)} for row in rows]


if __name__ == "__main__":
    sys.exit(compare_backends(__file__, measure, ("stage",), __doc__))
