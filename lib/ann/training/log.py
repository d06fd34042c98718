"""The record of a run: a CSV table with a row per epoch, and the learning curve drawn from it."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of the table, oldest first; none if there is no table yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_row(path: Path, row: dict[str, float | str]) -> None:
    """Write the row of an epoch behind those of the epochs before it.

    Rows of the same or later epochs, left by a run that this one continues or replaces, are dropped.
    The table is written anew and renamed, so it is never found half written.
    """
    kept = [old for old in read_rows(path) if int(old["epoch"]) < int(row["epoch"])]
    columns = list(dict.fromkeys([*row, *(column for old in kept for column in old)]))
    temporary = path.with_suffix(".csv.part")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([*kept, {key: _rounded(value) for key, value in row.items()}])
    os.replace(temporary, path)


def best_epoch(path: Path, ranking: str) -> int:
    """The epoch with the highest value in the column `ranking`; ties, and rows without it, go by the lowest
    loss.

    The loss is that of validation, where there is one. 0 without any row.
    """

    def rank(row):
        score, loss = _number(row.get(ranking)), _number(row.get("val_loss") or row["loss"])
        return (-math.inf if math.isnan(score) else score, -loss)

    return int(max(read_rows(path), key=rank, default={"epoch": 0})["epoch"])


def _rounded(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def draw_curve(table: Path, picture: Path) -> None:
    """Draw training and validation losses over the epochs as a PNG."""
    from matplotlib.figure import Figure

    rows = read_rows(table)
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for column in (name for name in rows[0] if name.endswith("loss") and not name.startswith("val_")):
        total = column == "loss"
        (line,) = axes.plot(
            epochs,
            [_number(row[column]) for row in rows],
            marker="." if len(rows) < 40 else None,
            linewidth=2.5 if total else 1,
            label=column,
        )
        validation = [_number(row.get(f"val_{column}")) for row in rows]
        axes.plot(epochs, validation, linestyle="--", linewidth=2.5 if total else 1, color=line.get_color())
    axes.set_xlabel("epoch (solid: training, dashed: validation)")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = picture.with_suffix(".png.part")
    figure.savefig(temporary, dpi=110, format="png")
    os.replace(temporary, picture)


def _number(text):
    return float(text) if text else float("nan")
