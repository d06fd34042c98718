"""Score a Mask R-CNN while it is trained, and say in the report how well it detects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ann.data.targets.instances import INSTANCES
from ann.devices.sharing import ALONE, Sharing
from ann.evaluation import charts
from ann.evaluation.pictures import COLOURS
from ann.evaluation.report import Figure, Row, ScoreParts, Section, Table, count, number
from ann.task import TestOutcome
from ann.training.job import Job
from ann.training.preparation import validation_batches
from maskrcnn.scores.average_precision import Scores, score
from maskrcnn.scores.charts import precision_recall_chart
from maskrcnn.scores.pictures import Pair, draw_pair, pick_windows
from maskrcnn.scores.scenes import detect_image
from maskrcnn.scores.windows import CONFIDENCE, Detector, detect_windows

PICTURES = 6
PICTURE_CONFIDENCE = 0.5  # of classes of which no better one is known
ALL_INSTANCES = 1_000_000  # no label is left out of a window


class DetectionScorer:
    """Average precision on validation windows and on whole images; a `Scorer`.

    detector: detects with the network's weights as they are at that time.
    """

    def __init__(self, job: Job, detector: Detector, sharing: Sharing = ALONE):
        self._job, self._detector, self._sharing = job, detector, sharing
        config = replace(job.config, max_instances=ALL_INSTANCES)
        self._windows = validation_batches(job, config, INSTANCES)
        self._scores: Scores | None = None
        self._pairs: tuple[Pair, ...] = ()

    def score(self) -> dict[str, float]:
        """See `Scorer`."""
        if self._windows is None:
            return {}
        job = self._job
        results = detect_windows(
            self._detector,
            self._windows,
            batch_size=job.settings.batch_size,
            workers=job.settings.workers,
            sharing=self._sharing,
        )
        self._scores = score(results, job.config.classes)
        known = [self._scores.best_confidence("mask", name)[0] for name in job.config.classes]
        confidences = np.nan_to_num(known, nan=PICTURE_CONFIDENCE)
        self._pairs = tuple(
            draw_pair(
                self._windows.window(number)[0],
                self._windows.sample(number),
                results[number],
                confidences,
                job.config.band_mean,
                job.config.band_scale,
            )
            for number in pick_windows(results, PICTURES)
        )
        return self._scores.columns()

    def test(self, model: str) -> TestOutcome:
        """See `Scorer`."""
        job = self._job
        results = {
            number: detect_image(
                self._detector, job.held_out[number], job.config, batch_size=job.settings.batch_size
            )
            for number in self._sharing.part(len(job.held_out))
        }
        scores = score(self._sharing.collect(results), job.config.classes)
        content = {"all": _by_kind(scores)} | {
            "classes": {
                name: {"objects": int(truth), **_by_kind(scores, name)}
                for name, truth in zip(scores.classes, scores.truth, strict=True)
            }
        }
        section = Section(
            title="Test: images that were left out",
            texts=[
                f"The model {model} was tried on {count(len(job.held_out), 'image')} that had no part in the "
                "training or in the choice of the best epoch: whole images, cut into tiles and merged as "
                "i.ann.maskrcnn.detect does. These are the most honest figures of this report."
            ],
            tables=[_score_table(scores, choosing=False)],
            notes=[f"Images: {', '.join(image.name for image in job.held_out)}"],
        )
        return TestOutcome(content=content, text=describe_scores(scores), section=section)

    def parts(self, rows: Sequence[Mapping[str, str]], best_epoch: int) -> ScoreParts:
        """See `Scorer`."""
        cards = {"mask_AP": "mask AP", "mask_AP50": "mask AP50", "box_AP": "box AP"}
        columns = {
            "box_AP": "Box AP",
            "mask_AP": "Mask AP",
            "mask_AP50": "AP50",
            "mask_AP75": "AP75",
            "mask_AR": "AR",
        }
        scores = self._scores
        if scores is None:
            return ScoreParts(cards=cards, columns=columns)
        lines = {
            "mask_AP": "mask AP",
            "box_AP": "box AP",
            "mask_AP50": "mask AP50",
            "mask_AP75": "mask AP75",
        }
        figures = [
            Figure(
                pictures=[charts.score_chart(rows, lines, best_epoch)],
                caption="Scores on the validation images, 1 is perfect. The best epoch has the highest "
                "mask AP.",
            )
        ]
        if len(scores.classes) > 1:
            chart = charts.class_chart(rows, "mask_AP", "mask AP", scores.classes)
            figures.append(Figure(pictures=[chart], caption="Mask AP of each class."))
        sections = [_validation(scores), *_precision_recall(scores)]
        if self._pairs:
            sections.append(_pictures(self._pairs, self._job.config.classes))
        return ScoreParts(cards=cards, columns=columns, figures=figures, sections=sections)


def _validation(scores: Scores) -> Section:
    return Section(
        title="Scores of the last epoch",
        texts=[
            f"On {count(scores.images, 'validation window')} (pieces of the validation images, as the "
            "network sees them)."
        ],
        tables=[_score_table(scores, choosing=True)],
        notes=[
            "AP, average precision: the area under the precision-recall curve, the mean over ten demands "
            "on how well outlines agree (intersection over union, IoU, of 0.5 to 0.95). AP50 and AP75 "
            "demand 0.5 and 0.75. AR: share of the objects that are found at all, over the same ten. All "
            f"detections with a score of {CONFIDENCE} or more count, however many an image has. Confidence: "
            "the value of the option of i.ann.maskrcnn.detect with the best balance of wrong and missed "
            "objects (highest F1 at IoU 0.5), and the precision and recall it gives. A class without "
            "labelled objects has no scores."
        ],
    )


def _score_table(scores: Scores, *, choosing: bool) -> Table:
    """Scores of each class; when `choosing`, also the best confidence, which is not to be read off a test."""
    head = ["Class", "Objects", "Mask AP", "AP50", "AP75", "AR", "Box AP", "AP50", "AP75", "AR"]
    if choosing:
        head += ["Confidence", "Precision", "Recall"]
    rows = []
    for index, name in enumerate(scores.classes):
        values = [*scores.summary("mask", name).values(), *scores.summary("box", name).values()]
        if choosing:
            values += scores.best_confidence("mask", name)
        cells = [name, str(scores.truth[index]), *map(number, values)]
        rows.append(Row(cells=cells, colour=COLOURS[index % len(COLOURS)]))
    if len(scores.classes) > 1:
        overall = [*scores.summary("mask").values(), *scores.summary("box").values()]
        cells = ["all (mean)", str(scores.truth.sum()), *map(number, overall)]
        rows.append(Row(cells=cells + [""] * (len(head) - len(cells)), mark="all"))
    return Table(head=head, rows=rows)


def _precision_recall(scores: Scores) -> list[Section]:
    known = [name for name, truth in zip(scores.classes, scores.truth, strict=True) if truth]
    drawn = known[: charts.MOST_CLASSES]
    if not drawn:
        return []
    left_out = len(known) - len(drawn)
    section = Section(
        title="Precision and recall of masks",
        texts=[
            "From left to right the demanded score falls: more objects are found (recall), and more of "
            "what is found is wrong (precision). The dot is the confidence with the best balance."
        ],
        figures=[Figure(pictures=[precision_recall_chart(scores, name)]) for name in drawn],
        layout="three",
        notes=[f"{left_out} more classes are not drawn."] if left_out else [],
    )
    return [section]


def _pictures(pairs: Sequence[Pair], classes: Sequence[str]) -> Section:
    return Section(
        title="Validation images: labels (left) and detections (right)",
        texts=[
            "Drawn are detections from each class's confidence in the table above. A red outline is a "
            "mistake: on the left an object that was missed, on the right a detection without such an "
            "object (wrong class, or IoU below 0.5). Grey areas are labelled as not to be judged. Colours "
            "inside:"
        ],
        legend=list(zip(classes, COLOURS, strict=False)),
        figures=[
            Figure(
                pictures=[pair.truth, pair.found],
                caption=f"{pair.name}: {count(pair.objects, 'object')}, {pair.missed} missed; "
                f"{count(pair.detections, 'detection')}, {pair.wrong} wrong",
            )
            for pair in pairs
        ],
        layout="pairs",
    )


def describe_scores(scores: Scores) -> str:
    """The main scores as text, a line for each class if there are several."""
    classes = scores.classes if len(scores.classes) > 1 else ()
    lines = [_line("", scores.summary("mask"), scores.summary("box"))]
    lines += [
        _line(f"{name}: ", scores.summary("mask", name), scores.summary("box", name)) for name in classes
    ]
    return "\n".join(lines)


def _line(name: str, mask: Mapping[str, float], box: Mapping[str, float]) -> str:
    masks, boxes = (", ".join(f"{key} {value:.3f}" for key, value in one.items()) for one in (mask, box))
    return f"{name}masks {masks}; boxes {boxes}"


def _by_kind(scores: Scores, class_name: str | None = None) -> dict[str, float | None]:
    """The scores of boxes and masks, None for what is unknown."""
    values = {
        f"{kind}_{name}": value
        for kind in ("box", "mask")
        for name, value in scores.summary(kind, class_name).items()
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}
