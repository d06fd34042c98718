"""The report's charts, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = ("#1f6f8b", "#d1495b", "#66a182", "#edae49", "#6c5b9e", "#8d6b4f", "#3d9be0", "#9aa5b1")
GREY = "#9aa5b1"
WIDTH, HEIGHT = 6.4, 3.6  # inches
DOTS_PER_INCH = 130
MOST_CLASSES = 12  # with a curve of their own

LOSSES = {
    "rpn_class_loss": "proposals: object or not",
    "rpn_box_loss": "proposals: box",
    "mrcnn_class_loss": "class",
    "mrcnn_box_loss": "box",
    "mrcnn_mask_loss": "outline",
    "weight_loss": "size of weights",
}

Rows = Sequence[Mapping[str, str]]


def loss_chart(rows: Rows) -> bytes:
    """Loss of training and of validation over the epochs, and the parts of the latter."""
    figure, axes = _epoch_chart(rows, "loss")
    epochs = _column(rows, "epoch")
    validated = not np.isnan(_column(rows, "val_loss")).all()
    prefix = "val_" if validated else ""
    parts = [name for name in rows[0] if name.endswith("_loss") and not name.startswith("val_")]
    for number, name in enumerate(parts if len(parts) > 1 else ()):
        colour = COLOURS[(number + 2) % len(COLOURS)]
        _line(axes, epochs, _column(rows, prefix + name), colour, LOSSES.get(name, name), 1, ":")
    _line(axes, epochs, _column(rows, "loss"), COLOURS[0], "training")
    if validated:
        _line(axes, epochs, _column(rows, "val_loss"), COLOURS[1], "validation")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False, ncols=2)
    return png(figure)


def score_chart(rows: Rows, scores: Mapping[str, str], best_epoch: int) -> bytes:
    """Scores (columns with their labels) over the epochs, the first one strongest; the best epoch is
    marked.
    """
    figure, axes = _epoch_chart(rows, "score")
    epochs = _column(rows, "epoch")
    for number, (name, label) in reversed(list(enumerate(scores.items()))):
        _line(
            axes, epochs, _column(rows, name), COLOURS[number % len(COLOURS)], label, 1.3 if number else 2.4
        )
    if best_epoch:
        axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"best: epoch {best_epoch}")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=9, frameon=False, ncols=2)
    return png(figure)


def class_chart(rows: Rows, score: str, label: str, classes: Sequence[str]) -> bytes:
    """A score of each class over the epochs: the columns <score>_<class>."""
    figure, axes = _epoch_chart(rows, label)
    for number, name in enumerate(classes[:MOST_CLASSES]):
        values = _column(rows, f"{score}_{name}")
        style = "-" if number < len(COLOURS) else "--"
        _line(axes, _column(rows, "epoch"), values, COLOURS[number % len(COLOURS)], literal(name), 1.6, style)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=9, frameon=False, ncols=2)
    return png(figure)


def time_chart(rows: Rows) -> bytes:
    """Minutes of each epoch, and the learning rate at its end."""
    figure, axes = _epoch_chart(rows, "minutes")
    epochs = _column(rows, "epoch")
    axes.bar(epochs, _column(rows, "seconds") / 60, color="#b7d3dc", label="minutes", zorder=2)
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    other.plot(epochs, _column(rows, "learning_rate"), color=COLOURS[1], linewidth=1.6, marker=_marker(rows))
    other.set_ylabel("learning rate", color=COLOURS[1])
    other.set_ylim(bottom=0)
    other.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    other.tick_params(labelsize=9, colors=COLOURS[1])
    for side in ("top", "left", "right", "bottom"):
        other.spines[side].set_visible(False)
    return png(figure)


def pair_chart(rows: Rows, column: str, label: str) -> bytes:
    """A measure of training (`column`) and of validation (`val_<column>`) over the epochs, 0 to 1."""
    figure, axes = _epoch_chart(rows, label)
    epochs = _column(rows, "epoch")
    for number, (name, title) in enumerate(((column, "training"), (f"val_{column}", "validation"))):
        _line(axes, epochs, _column(rows, name), COLOURS[number], title)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=9, frameon=False, ncols=2)
    return png(figure)


def bar_chart(values: Mapping[str, float], strong: str, label: str) -> bytes:
    """A bar for each value from 0 to 1, the one called `strong` in another colour."""
    figure, axes = chart(label, "", (WIDTH, 0.9 + 0.28 * len(values)))
    colours = [COLOURS[0] if name == strong else GREY for name in values]
    bars = axes.barh([literal(name) for name in values], list(values.values()), color=colours, zorder=2)
    axes.bar_label(bars, [f"{value:.2f}" for value in values.values()], padding=3, fontsize=9)
    axes.set_xlim(0, 1.1)
    axes.invert_yaxis()
    return png(figure)


def calibration_chart(points: Sequence[tuple[float, float, int]]) -> bytes:
    """Share of right answers by the probability that was given: (probability, share, images) of each part."""
    figure, axes = chart("probability of the predicted class", "share that is right", (HEIGHT, HEIGHT))
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    said, was, counts = (np.array(one, dtype=float) for one in zip(*points, strict=True))
    axes.plot(said, was, color=COLOURS[0], linewidth=1.4)
    axes.scatter(said, was, 20 + 200 * counts / counts.sum(), color=COLOURS[0], zorder=3)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    return png(figure)


def literal(text: str) -> str:
    """A text that Matplotlib shows as it is: no formula between dollars, no label hidden for its first _."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _epoch_chart(rows: Rows, y_label: str):
    """An empty chart with room for the epochs so far."""
    figure, axes = chart("epoch", y_label)
    epochs = _column(rows, "epoch")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    return figure, axes


def chart(x_label: str, y_label: str, size=(WIDTH, HEIGHT)):
    """An empty chart: figure and axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if x_label == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes


def _line(axes, epochs, values, colour, label, width=2.2, style="-") -> None:
    marker = "." if len(epochs) < 40 else None
    axes.plot(epochs, values, style, color=colour, linewidth=width, marker=marker, label=label)


def _marker(rows: Rows) -> str | None:
    return "." if len(rows) < 40 else None


def _column(rows: Rows, name: str) -> np.ndarray:
    return np.array([float(row.get(name) or "nan") for row in rows])


def png(figure) -> bytes:
    """A figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, dpi=DOTS_PER_INCH, format="png", metadata={"Software": None})
    return data.getvalue()
