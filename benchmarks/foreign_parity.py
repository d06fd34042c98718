#!/usr/bin/env python3
"""Print how far imported networks are from torchvision's and detectron2's numbers, as a Markdown table.

usage: foreign_parity.py [BACKEND ...]

Each backend (tensorflow, jax and torch by default) runs in a process of its own, a column for each.
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
    """All steps of all cases on the configured backend."""
    import foreign_stages

    rows = []
    for name in foreign_stages.CASES:
        case = foreign_stages.Case(name)
        for steps in ("layer_steps", "selection_steps", "whole_steps"):
            found = getattr(foreign_stages, steps)(case)
            rows += [{"case": name, **vars(row), "good": row.good} for row in found]
    return rows


def run(backend: str) -> list[dict]:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(PATHS)}
    command = [sys.executable, str(HERE), "--measure"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(measured: dict[str, list[dict]]) -> str:
    lines = [
        f"| case | step | {' | '.join(measured)} | tolerance | unit |",
        f"|---|---|{'---|' * len(measured)}---|---|",
    ]
    for rows in zip(*measured.values(), strict=True):
        first = rows[0]
        cells = [f"{row['difference']:.1e}{'' if row['good'] else ' **too far**'}" for row in rows]
        lines.append(
            f"| {first['case']} | {first['step']} | {' | '.join(cells)} "
            f"| {first['tolerance']:g} | {first['unit']} |"
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
