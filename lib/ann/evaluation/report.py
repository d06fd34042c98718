"""The report of a run: one HTML file that needs nothing beside it, to be opened in any browser."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from ann.data.dataset import Dataset, LabelledImage, count_instances
from ann.evaluation import charts
from maskrcnn.scores.average_precision import Scores
from maskrcnn.scores.pictures import COLOURS, Pair
from maskrcnn.scores.windows import CONFIDENCE

MOST_NOTES = 10
STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f6f8; color: #1d2730; line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 0 0 10px; }
section { background: #fff; border: 1px solid #e1e6ea; border-radius: 10px; padding: 18px 22px;
  margin-top: 18px; }
p { margin: 0 0 10px; max-width: 78ch; }
h1 + p { max-width: none; }
.quiet { color: #5d6b78; font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 18px; }
.card { background: #fff; border: 1px solid #e1e6ea; border-radius: 10px; padding: 12px 16px; }
.card b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650; color: #1f6f8b; }
.card span { color: #5d6b78; font-size: 13px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 18px; }
.three { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
figure { margin: 0; }
figcaption { color: #5d6b78; font-size: 13px; margin-top: 4px; }
img { max-width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.pair img { width: 100%; border-radius: 4px; }
.pairs figure { margin-top: 16px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 12px; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #edf0f2; }
th { color: #5d6b78; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
table.facts td { text-align: left; white-space: normal; vertical-align: top; overflow-wrap: anywhere; }
table.facts td:first-child { color: #5d6b78; white-space: nowrap; }
tr.all td { font-weight: 650; }
tr.best td { background: #eef6f9; }
summary { cursor: pointer; color: #1f6f8b; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px;
  border: 1px solid #0003; }
@media (max-width: 560px) { .two { grid-template-columns: 1fr; } }
""".strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class TestScores:
    """Scores on the images that were left out. model: the file that was scored."""

    __test__ = False  # no test case, whatever pytest may think of the name

    scores: Scores
    model: str
    images: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What is told of a run.

    rows: the table's, as text; best_epoch: 0 if there is none; epochs: planned in all.
    scores, pairs: of the last epoch's validation; None and empty without validation.
    options, facts: names and values to list.
    """

    name: str
    rows: Sequence[Mapping[str, str]]
    epochs: int
    best_epoch: int
    dataset: Dataset
    held_out: tuple[LabelledImage, ...] = ()
    scores: Scores | None = None
    pairs: tuple[Pair, ...] = ()
    test: TestScores | None = None
    options: Mapping[str, str]
    facts: Mapping[str, str]


def write_report(path: Path, report: Report) -> None:
    """Write the HTML file; one that is there is replaced when the new one is complete."""
    temporary = path.with_suffix(".html.part")
    temporary.write_text(to_html(report), encoding="utf-8")
    os.replace(temporary, path)


def to_html(report: Report) -> str:
    """The report as one HTML page, with its pictures in it."""
    parts = [_cards(report)]
    if report.test:
        parts.append(_test(report.test))
    parts.append(_curves(report))
    if report.scores:
        parts.append(_validation(report.scores))
        parts.append(_precision_recall(report.scores))
    if report.pairs:
        parts.append(_pictures(report))
    parts += [_data(report), _facts("Settings", report.options), _facts("Model and machine", report.facts)]
    parts.append(_epochs(report))
    title = f"Training of {escape(report.name)}"
    done = int(report.rows[-1]["epoch"]) if report.rows else 0
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        f'<p class="quiet">After epoch {done} of {report.epochs}, {datetime.now():%Y-%m-%d %H:%M}. '
        "Mask R-CNN, trained with i.ann.maskrcnn.train in GRASS GIS.</p>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _cards(report: Report) -> str:
    best = next((row for row in report.rows if int(row["epoch"]) == report.best_epoch), {})
    seconds = [float(row["seconds"]) for row in report.rows]
    cards = []
    if best.get("mask_AP"):
        cards += [
            (_number(best["mask_AP"]), "mask AP"),
            (_number(best["mask_AP50"]), "mask AP50"),
            (_number(best["box_AP"]), "box AP"),
        ]
    elif best:
        cards.append((_number(best.get("val_loss") or best["loss"]), "loss"))
    cards.append((str(report.best_epoch), "best epoch, whose scores these are"))
    cards.append((_duration(sum(seconds) / max(1, len(seconds))), "per epoch (mean)"))
    cards.append((_duration(sum(seconds)), "training so far"))
    items = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{label}</span></div>' for value, label in cards
    )
    return f'<div class="cards">{items}</div>'


def _test(test: TestScores) -> str:
    return _section(
        "Test: images that were left out",
        f"<p>The model {escape(test.model)} was tried on {_count(len(test.images), 'image')} that had no "
        "part in the training or in the choice of the best epoch: whole images, cut into tiles and merged as "
        "i.ann.maskrcnn.detect does. These are the most honest figures of this report.</p>"
        + _score_table(test.scores, choosing=False)
        + f'<p class="quiet">Images: {escape(", ".join(test.images))}</p>',
    )


def _curves(report: Report) -> str:
    figures = [
        (
            charts.loss_chart(report.rows),
            "Loss on the training images (solid, which are changed by chance) and on the validation images; "
            "dotted: the parts of the loss. When validation rises again while training falls, the model "
            "learns the images by heart.",
        )
    ]
    if report.scores:
        figures.append(
            (
                charts.score_chart(report.rows, report.best_epoch),
                "Scores on the validation images, 1 is perfect. The best epoch has the highest mask AP.",
            )
        )
        if len(report.scores.classes) > 1:
            figures.append((charts.class_chart(report.rows, report.scores.classes), "Mask AP of each class."))
    figures.append(
        (charts.time_chart(report.rows), "Minutes of each epoch, scoring included, and learning rate.")
    )
    return _section("Learning curves", _figures(figures, "two"))


def _validation(scores: Scores) -> str:
    return _section(
        "Scores of the last epoch",
        f"<p>On {_count(scores.images, 'validation window')} (pieces of the validation images, as the "
        "network sees them).</p>"
        + _score_table(scores, choosing=True)
        + '<p class="quiet"><b>AP</b>, average precision: the area under the precision-recall curve, the '
        "mean over ten demands on how well outlines agree (intersection over union, IoU, of 0.5 to 0.95). "
        "<b>AP50</b> and <b>AP75</b> demand 0.5 and 0.75. <b>AR</b>: share of the objects that are found at "
        f"all, over the same ten. All detections with a score of {CONFIDENCE} or more count, however many "
        "an image has. <b>Confidence</b>: the value of the option of i.ann.maskrcnn.detect with the best "
        "balance of wrong and missed objects (highest F1 at IoU 0.5), and the precision and recall it gives. "
        "A class without labelled objects has no scores.</p>",
    )


def _score_table(scores: Scores, *, choosing: bool) -> str:
    """Scores of each class; when `choosing`, also the best confidence, which is not to be read off a test."""
    head = ["Class", "Objects", "Mask AP", "AP50", "AP75", "AR", "Box AP", "AP50", "AP75", "AR"]
    if choosing:
        head += ["Confidence", "Precision", "Recall"]
    rows = []
    for name in scores.classes:
        index = scores.classes.index(name)
        values = [*scores.summary("mask", name).values(), *scores.summary("box", name).values()]
        if choosing:
            values += scores.best_confidence("mask", name)
        swatch = _swatch(index)
        rows.append([swatch + escape(name), str(scores.truth[index]), *map(_number, values)])
    overall = [*scores.summary("mask").values(), *scores.summary("box").values()]
    if len(scores.classes) > 1:
        rows.append(["all (mean)", str(scores.truth.sum()), *map(_number, overall)])
        rows[-1] += [""] * (len(head) - len(rows[-1]))
    return _table(head, rows, last="all" if len(scores.classes) > 1 else "")


def _precision_recall(scores: Scores) -> str:
    known = [name for name in scores.classes if scores.truth[scores.classes.index(name)]]
    figures = [(charts.precision_recall_chart(scores, name), "") for name in known[: charts.MOST_CLASSES]]
    if not figures:
        return ""
    left_out = len(known) - len(figures)
    return _section(
        "Precision and recall of masks",
        "<p>From left to right the demanded score falls: more objects are found (recall), and more of what "
        "is found is wrong (precision). The dot is the confidence with the best balance.</p>"
        + _figures(figures, "three")
        + (f'<p class="quiet">{left_out} more classes are not drawn.</p>' if left_out else ""),
    )


def _pictures(report: Report) -> str:
    classes = report.dataset.classes[: len(COLOURS)]
    legend = " ".join(f"{_swatch(index)}{escape(name)} &nbsp;" for index, name in enumerate(classes))
    figures = []
    for pair in report.pairs:
        caption = (
            f"{escape(pair.name)}: {_count(pair.objects, 'object')}, {pair.missed} missed; "
            f"{_count(pair.detections, 'detection')}, {pair.wrong} wrong"
        )
        figures.append(
            f'<figure><div class="pair">{_image(pair.truth, "labels", "jpeg")}'
            f"{_image(pair.found, 'detections', 'jpeg')}</div><figcaption>{caption}</figcaption></figure>"
        )
    return _section(
        "Validation images: labels (left) and detections (right)",
        "<p>Drawn are detections from each class's confidence in the table above. A red outline is a "
        "mistake: on the left an object that was missed, on the right a detection without such an object "
        "(wrong class, or IoU below 0.5). Grey areas are labelled as not to be judged. Colours inside: "
        f'{legend}</p><div class="pairs">{"".join(figures)}</div>',
    )


def _data(report: Report) -> str:
    dataset, class_count = report.dataset, len(report.dataset.classes)
    rows = []
    for name, images in (
        ("Training", dataset.images),
        ("Validation", dataset.validation),
        ("Left out for the test", report.held_out),
    ):
        if images:
            pixels = sum(image.height * image.width for image in images) / 1e6
            counts = count_instances(images, class_count)
            rows.append([name, str(len(images)), f"{pixels:.1f}", *(f"{count:,}" for count in counts)])
    head = ["", "Images", "Million pixels", *(escape(name) for name in dataset.classes)]
    everything = (*dataset.images, *dataset.validation, *report.held_out)
    sizes = sorted({(image.height, image.width) for image in everything})
    size = f"{sizes[0][0]} x {sizes[0][1]}"
    if len(sizes) > 1:
        size += f" to {sizes[-1][0]} x {sizes[-1][1]}"
    ground = sorted({image.pixel_size for image in everything if image.pixel_size})
    facts = {
        "Size of images": f"{size} pixels",
        "Bands": f"{everything[0].bands}, {', '.join(sorted({image.dtype for image in everything}))}",
        "Size of a pixel": f"{ground[0]:g} to {ground[-1]:g} map units" if ground else "not georeferenced",
    }
    notes = dataset.notes[:MOST_NOTES]
    more = len(dataset.notes) - len(notes)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    listed += f"<li>and {more} more notes</li>" if more > 0 else ""
    return _section(
        "Data",
        "<p>Images, and labelled objects of each class. Training and validation images are different images "
        "(or, of a single image, different parts).</p>"
        + _table(head, rows)
        + _fact_table(facts)
        + (f'<ul class="quiet">{listed}</ul>' if listed else ""),
    )


def _epochs(report: Report) -> str:
    columns = {
        "epoch": "Epoch",
        "stage": "Layers",
        "loss": "Loss",
        "val_loss": "Validation loss",
        "box_AP": "Box AP",
        "mask_AP": "Mask AP",
        "mask_AP50": "AP50",
        "mask_AP75": "AP75",
        "mask_AR": "AR",
        "learning_rate": "Learning rate",
        "seconds": "Time",
    }
    known = [name for name in columns if any(row.get(name) for row in report.rows)]
    rows, marks = [], []
    for row in report.rows:
        marks.append("best" if int(row["epoch"]) == report.best_epoch else "")
        rows.append([_cell(name, row.get(name) or "") for name in known])
    table = _table([columns[name] for name in known], rows, marks=marks)
    return _section(
        "All epochs", f"<details><summary>{_count(len(rows), 'epoch')}</summary>{table}</details>"
    )


def _cell(name: str, text: str) -> str:
    if name == "seconds":
        return _duration(float(text)) if text else ""
    if name == "learning_rate":
        return f"{float(text):.1e}" if text else ""
    return escape(text) if name in ("epoch", "stage") else _number(text)


def _facts(title: str, values: Mapping[str, str]) -> str:
    return _section(title, _fact_table(values))


def _fact_table(values: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="facts">{rows}</table>'


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, last: str = "", marks: Sequence[str] = ()
) -> str:
    """A table of cells that are HTML already; last: the last row's class; marks: those of all rows."""
    marks = list(marks) or [""] * (len(rows) - 1) + [last]
    body = "".join(
        f'<tr class="{mark}">{"".join(f"<td>{cell}</td>" for cell in row)}</tr>'
        for mark, row in zip(marks, rows, strict=True)
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'


def _figures(figures: Iterable[tuple[bytes, str]], layout: str) -> str:
    items = "".join(
        f"<figure>{_image(data, caption or 'chart', 'png')}"
        f"{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"
        for data, caption in figures
    )
    return f'<div class="{layout}">{items}</div>'


def _image(data: bytes, text: str, kind: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{encoded}">'


def _swatch(index: int) -> str:
    red, green, blue = COLOURS[index % len(COLOURS)]
    return f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>'


def _number(value: float | str) -> str:
    value = float(value) if value != "" else math.nan
    return "–" if math.isnan(value) else f"{value:.3f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
