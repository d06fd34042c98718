#!/usr/bin/env python3
"""Print how far imported networks are from torchvision's and detectron2's numbers, as a Markdown table.

usage: foreign_parity.py [BACKEND ...]

Each backend (tensorflow, jax and torch by default) runs in a process of its own, a column for each.
"""

from __future__ import annotations

import sys

from parity import compare_backends


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


if __name__ == "__main__":
    sys.exit(compare_backends(__file__, measure, ("case", "step"), __doc__))
