"""The report of a run: one HTML file that needs nothing beside it, to be opened in any browser.

Here is what goes in, whatever the network; `report.html` says how it looks.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ann.data.dataset import Dataset, LabelledImage, count_instances
from ann.evaluation import charts

MOST_NOTES = 10
Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table. mark: "best", "all" or nothing; colour: shown before the first cell."""

    cells: Sequence[str]
    mark: str = ""
    colour: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, its cells as text."""

    head: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """Pictures side by side, PNG or JPEG files, and what to say about them."""

    pictures: Sequence[bytes]
    caption: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A part of the report, in the order in which it is shown. layout of figures: "two", "three" or "pairs".

    notes: texts in small print; points: a list in small print; folded: a title and a table to unfold.
    """

    title: str
    texts: Sequence[str] = ()
    legend: Sequence[tuple[str, Colour]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    layout: str = "two"
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[str] = ()
    folded: tuple[str, Table] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreParts:
    """What a task's scores add to the report.

    cards: columns of the best epoch's row with their labels; columns: of the table of epochs, with titles;
    figures: learning curves of the scores; sections: about the last epoch.
    """

    cards: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    sections: Sequence[Section] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What is told of a run.

    rows: the table's, as text; best_epoch: 0 if there is none; epochs: planned in all.
    subtitle: the network and the module that trained it.
    test: about the images that were left out. options, facts: names and values to list.
    """

    name: str
    subtitle: str
    rows: Sequence[Mapping[str, str]]
    epochs: int
    best_epoch: int
    dataset: Dataset
    held_out: tuple[LabelledImage, ...] = ()
    scores: ScoreParts = field(default_factory=ScoreParts)
    test: Section | None = None
    options: Mapping[str, str]
    facts: Mapping[str, str]


def write_report(path: Path, report: Report) -> None:
    """Write the HTML file; one that is there is replaced when the new one is complete."""
    temporary = path.with_suffix(".html.part")
    temporary.write_text(to_html(report), encoding="utf-8")
    os.replace(temporary, path)


def to_html(report: Report) -> str:
    """The report as one HTML page, with its pictures in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    environment.filters["kind"] = lambda data: "png" if data.startswith(b"\x89PNG") else "jpeg"
    done = int(report.rows[-1]["epoch"]) if report.rows else 0
    sections = [
        *([report.test] if report.test else []),
        _curves(report),
        *report.scores.sections,
        _data(report),
        Section(title="Settings", facts=report.options),
        Section(title="Model and machine", facts=report.facts),
        _epochs(report),
    ]
    return environment.get_template("report.html").render(
        title=f"Training of {report.name}",
        subtitle=f"After epoch {done} of {report.epochs}, {datetime.now():%Y-%m-%d %H:%M}. {report.subtitle}",
        cards=_cards(report),
        sections=sections,
    )


def _cards(report: Report) -> list[tuple[str, str]]:
    best = next((row for row in report.rows if int(row["epoch"]) == report.best_epoch), {})
    seconds = [float(row["seconds"]) for row in report.rows]
    cards = [(number(best[name]), label) for name, label in report.scores.cards.items() if best.get(name)]
    if best and not cards:
        cards.append((number(best.get("val_loss") or best["loss"]), "loss"))
    cards.append((str(report.best_epoch), "best epoch, whose scores these are"))
    cards.append((duration(sum(seconds) / max(1, len(seconds))), "per epoch (mean)"))
    cards.append((duration(sum(seconds)), "training so far"))
    return cards


def _curves(report: Report) -> Section:
    loss = Figure(
        pictures=[charts.loss_chart(report.rows)],
        caption="Loss on the training images (solid, which are changed by chance) and on the validation "
        "images; dotted: the parts of the loss. When validation rises again while training falls, the model "
        "learns the images by heart.",
    )
    time = Figure(
        pictures=[charts.time_chart(report.rows)],
        caption="Minutes of each epoch, scoring included, and learning rate.",
    )
    return Section(title="Learning curves", figures=[loss, *report.scores.figures, time])


def _data(report: Report) -> Section:
    dataset, class_count = report.dataset, len(report.dataset.classes)
    rows = []
    for name, images in (
        ("Training", dataset.images),
        ("Validation", dataset.validation),
        ("Left out for the test", report.held_out),
    ):
        if images:
            pixels = sum(image.height * image.width for image in images) / 1e6
            counts = (f"{total:,}" for total in count_instances(images, class_count))
            rows.append(Row(cells=[name, str(len(images)), f"{pixels:.1f}", *counts]))
    everything = (*dataset.images, *dataset.validation, *report.held_out)
    sizes = sorted({(image.height, image.width) for image in everything})
    size = f"{sizes[0][0]} x {sizes[0][1]}"
    if len(sizes) > 1:
        size += f" to {sizes[-1][0]} x {sizes[-1][1]}"
    ground = sorted({image.pixel_size for image in everything if image.pixel_size})
    notes = list(dataset.notes[:MOST_NOTES])
    if len(dataset.notes) > len(notes):
        notes.append(f"and {len(dataset.notes) - len(notes)} more notes")
    return Section(
        title="Data",
        texts=[
            f"Images, and {dataset.counted} of each class. Training and validation images are "
            "different images (or, of a single image, different parts)."
        ],
        tables=[Table(head=["", "Images", "Million pixels", *dataset.classes], rows=rows)],
        facts={
            "Size of images": f"{size} pixels",
            "Bands": f"{everything[0].bands}, {', '.join(sorted({image.dtype for image in everything}))}",
            "Size of a pixel": f"{ground[0]:g} to {ground[-1]:g} m" if ground else "not georeferenced",
        },
        points=notes,
    )


def _epochs(report: Report) -> Section:
    columns = {
        "epoch": "Epoch",
        "stage": "Layers",
        "loss": "Loss",
        "val_loss": "Validation loss",
        **report.scores.columns,
        "learning_rate": "Learning rate",
        "seconds": "Time",
    }
    known = [name for name in columns if any(row.get(name) for row in report.rows)]
    rows = [
        Row(
            cells=[_cell(name, row.get(name) or "") for name in known],
            mark="best" if int(row["epoch"]) == report.best_epoch else "",
        )
        for row in report.rows
    ]
    table = Table(head=[columns[name] for name in known], rows=rows)
    return Section(title="All epochs", folded=(count(len(rows), "epoch"), table))


def _cell(name: str, text: str) -> str:
    if name == "seconds":
        return duration(float(text)) if text else ""
    if name == "learning_rate":
        return f"{float(text):.1e}" if text else ""
    return text if name in ("epoch", "stage") else number(text)


def number(value: float | str) -> str:
    """A score or a loss; a dash for what is not known."""
    value = float(value) if value != "" else math.nan
    return "–" if math.isnan(value) else f"{value:.3f}"


def count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
