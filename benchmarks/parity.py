"""Differences from reference numbers as a Markdown table; each backend runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring import ROOT, markdown

PATHS = [str(ROOT / name) for name in ("lib", "tests")]


def compare_backends(
    script: str, measure: Callable[[], list[dict]], columns: Sequence[str], usage: str
) -> int:
    """What a script does that is called with backends (by default all three); its exit status.

    measure: rows on the configured backend, with difference, tolerance, unit, good and `columns`.
    """
    words = sys.argv[1:]
    if words == ["--measure"]:
        print(json.dumps(measure()))
        return 0
    if {"-h", "--help"} & set(words):
        print(usage)
        return 0
    measured = {backend: _run(script, backend) for backend in words or ["tensorflow", "jax", "torch"]}
    rows = list(zip(*measured.values(), strict=True))
    lines = []
    for row in rows:
        cells = [f"{one['difference']:.1e}{'' if one['good'] else ' **too far**'}" for one in row]
        first = row[0]
        lines.append(
            [*(first[column] for column in columns), *cells, f"{first['tolerance']:g}", first["unit"]]
        )
    print(markdown([*columns, *measured, "tolerance", "unit"], lines))
    return 0 if all(one["good"] for row in rows for one in row) else 1


def _run(script: str, backend: str) -> list[dict]:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(PATHS)}
    command = [sys.executable, str(Path(script).resolve()), "--measure"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
