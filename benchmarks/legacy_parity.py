#!/usr/bin/env python3
"""Print how far the network is from the original's numbers, stage by stage, as a Markdown table.

usage: legacy_parity.py [BACKEND ...]

Each backend (tensorflow, jax and torch by default) runs in a process of its own, a column for each. Beside
the ResNet50 numbers of the original, the dense part of both ResNets is compared with NumPy in double
precision.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
PATHS = [str(HERE.parents[1] / name) for name in ("lib", "tests")]


def measure() -> list[dict]:
    """All stages on the configured backend."""
    import legacy_stages
    from maskrcnn.network.model import build_network

    rows = []
    for stages in ("feature_stages", "selection_stages", "whole_stages", "training_stages"):
        rows += getattr(legacy_stages, stages)()
    for backbone in ("resnet50", "resnet101"):
        config = legacy_stages.reference_config(backbone=backbone, image_shape=(64, 128))
        rows += legacy_stages.numpy_stages(build_network(config))
    return [{**vars(row), "good": row.good, "difference": float(row.difference)} for row in rows]


def run(backend: str) -> list[dict]:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(PATHS)}
    command = [sys.executable, str(HERE), "--measure"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(measured: dict[str, list[dict]]) -> str:
    lines = [
        f"| stage | {' | '.join(measured)} | tolerance | unit |",
        f"|---|{'---|' * len(measured)}---|---|",
    ]
    for rows in zip(*measured.values(), strict=True):
        cells = [f"{row['difference']:.1e}{'' if row['good'] else ' **too far**'}" for row in rows]
        lines.append(
            f"| {rows[0]['stage']} | {' | '.join(cells)} | {rows[0]['tolerance']:g} | {rows[0]['unit']} |"
        )
    return "\n".join(lines)


def main(backends: list[str]) -> int:
    measured = {backend: run(backend) for backend in backends}
    print(table(measured))
    return 0 if all(row["good"] for rows in measured.values() for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
    elif {"-h", "--help"} & set(sys.argv):
        print(__doc__)
    else:
        sys.exit(main(sys.argv[1:] or ["tensorflow", "jax", "torch"]))
