"""What was told of images as a table: CSV, or JSON with all probabilities."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """What was told of an image. point: where it lies, (x, y) in coordinates of the project, if that is
    known.

    probabilities: (K,), None where nothing was told, for the reason `error`.
    """

    image: str
    point: tuple[float, float] | None
    probabilities: np.ndarray | None
    error: str = ""


def write_table(path: Path, lines: Iterable[tuple[Item, Line]], classes: Sequence[str]) -> Iterator[Item]:
    """Write a file, JSON if it is called .json, else CSV; what stands before each line is handed on.

    The file appears when all lines are in it.
    """
    temporary = path.with_name(f".{path.name}.part")
    write = _write_json if path.suffix.lower() == ".json" else _write_csv
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            yield from write(file, lines, classes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(file, lines: Iterable[tuple[Item, Line]], classes: Sequence[str]) -> Iterator[Item]:
    writer = csv.writer(file)
    head = ("class", "probability", "runner_up", "runner_up_probability")
    writer.writerow(("image", "x", "y", *head, "error"))
    for item, line in lines:
        told: Sequence = ("",) * len(head)
        if line.probabilities is not None:
            first, second = np.argsort(-line.probabilities, kind="stable")[:2].tolist()
            values = line.probabilities[[first, second]]
            told = (classes[first], f"{values[0]:.4f}", classes[second], f"{values[1]:.4f}")
        x, y = ("", "") if line.point is None else (repr(value) for value in line.point)
        writer.writerow((line.image, x, y, *told, line.error))
        yield item


def _write_json(file, lines: Iterable[tuple[Item, Line]], classes: Sequence[str]) -> Iterator[Item]:
    """A list, written line by line: it may be longer than the memory."""
    start = "[\n"
    for item, line in lines:
        entry: dict = {"image": line.image, "point": line.point}
        if line.probabilities is None:
            entry["error"] = line.error
        else:
            entry["class"] = classes[int(line.probabilities.argmax())]
            values = np.round(line.probabilities.astype(float), 4).tolist()
            entry["probabilities"] = dict(zip(classes, values, strict=True))
        file.write(start + json.dumps(entry))
        start = ",\n"
        yield item
    file.write("\n]\n")
