"""Score a U-Net while it is trained, and say in the report how well it tells classes apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np

from ann.data.outlines.class_raster import UNKNOWN
from ann.data.samples.batches import ValidationBatches, padded_batches, window_name
from ann.data.samples.order import evenly
from ann.data.targets.cells import CELLS, example_raster
from ann.devices.sharing import ALONE, Sharing
from ann.evaluation import charts
from ann.evaluation.pictures import COLOURS, IGNORED, jpeg, resize, shown_pixels
from ann.evaluation.report import Figure, Row, ScoreParts, Section, Table, count, number
from ann.evaluation.tables import confusion_table, known
from ann.inference.cells import CellSettings, Part, cell_worker, predict_cells
from ann.inference.labelled_scene import LabelledScene
from ann.inference.tile_rows import Here
from ann.task import TestOutcome
from ann.training.job import Job
from ann.training.preparation import validation_batches
from unet.classes import class_of_probabilities
from unet.scores import SLACK, CellScores, add_up, count_cells

PICTURES = 6
LINES = {
    "IoU": "IoU",
    "Dice": "Dice (F1)",
    "relaxed_F1": f"F1, {SLACK} cells of slack",
    "accuracy": "accuracy",
}

# images (B, H, W, C) float32 scaled -> probabilities (B, H, W, K)
Network = Callable[[np.ndarray], np.ndarray]


class CellScorer:
    """IoU, Dice and their like on validation windows and on whole images; a `Scorer`.

    network: gives probabilities with the weights as they are at that time.
    settings: how whole images are cut into tiles.
    """

    def __init__(self, job: Job, network: Network, settings: CellSettings, sharing: Sharing = ALONE):
        self._job, self._network, self._settings, self._sharing = job, network, settings, sharing
        self._windows: ValidationBatches | None = validation_batches(job, job.config, CELLS)
        self._scores: CellScores | None = None
        self._figures: tuple[Figure, ...] = ()

    def score(self) -> dict[str, float]:
        """See `Scorer`."""
        if self._windows is None:
            return {}
        classes = self._job.config.classes
        found = {}
        drawn = set(evenly(self._windows.sample_count, PICTURES))
        settings = self._job.settings
        for numbers, samples, images in padded_batches(
            self._windows, settings.batch_size, settings.workers, self._sharing
        ):
            predicted = class_of_probabilities(self._network(images)[: len(samples)])
            for index, sample, cells in zip(numbers, samples, predicted, strict=True):
                picture = self._picture(index, sample, cells) if index in drawn else None
                found[index] = count_cells(sample.labels, cells, len(classes)), picture
        counts, pictures = zip(*self._sharing.collect(found), strict=True)
        self._scores = CellScores(classes, add_up(counts, len(classes)))
        self._figures = tuple(picture for picture in pictures if picture)
        return self._scores.columns()

    def _picture(self, index: int, sample, predicted: np.ndarray) -> Figure:
        """The window, its labels, and what was predicted."""
        image, window = self._windows.window(index)
        config = self._job.config
        shown = shown_pixels(sample.image, sample.content, config.band_mean, config.band_scale, image.dtype)
        y1, x1, y2, x2 = sample.content
        labels, found = sample.labels[y1:y2, x1:x2], predicted[y1:y2, x1:x2]
        known = labels != UNKNOWN
        wrong = np.count_nonzero((labels != found) & known) / max(1, np.count_nonzero(known))
        pictures = [jpeg(shown), *(jpeg(_coloured(raster, shown)) for raster in (labels, found))]
        name = window_name(image, window)
        return Figure(pictures=pictures, caption=f"{name}: {100 * wrong:.1f} % of the labelled cells wrong")

    def test(self, model: str) -> TestOutcome:
        """See `Scorer`."""
        job, classes = self._job, self._job.config.classes
        counts = {}
        workers = Here(cell_worker(self._network, self._settings))
        for index in self._sharing.part(len(job.held_out)):
            image = job.held_out[index]
            part = Part(row=0, column=0, height=image.height, width=image.width)
            rows = predict_cells(LabelledScene(image), part, workers, self._settings)
            predicted = np.concatenate([class_of_probabilities(one.values) for one in rows])
            counts[index] = count_cells(example_raster(image.read(None)), predicted, len(classes))
        scores = CellScores(classes, add_up(self._sharing.collect(counts), len(classes)))
        content = {
            "all": known(scores.columns()),
            "classes": {name: known(scores.of_class(index)) for index, name in enumerate(classes, 1)},
            "confusion": scores.counts.confusion.tolist(),
        }
        text = "\n".join(
            f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores.of_class(index).items())
            for index, name in enumerate(classes, 1)
        )
        section = Section(
            title="Test: images that were left out",
            texts=[
                f"The model {model} was tried on {count(len(job.held_out), 'image')} that had no part in the "
                "training or in the choice of the best epoch: whole images, cut into tiles as "
                "i.ann.unet.predict does. These are the most honest figures of this report."
            ],
            tables=[_score_table(scores), _confusion_table(scores)],
            notes=[f"Images: {', '.join(image.name for image in job.held_out)}"],
        )
        return TestOutcome(content=content, text=text, section=section)

    def parts(self, rows: Sequence[Mapping[str, str]], best_epoch: int) -> ScoreParts:
        """See `Scorer`."""
        cards = {"IoU": "mean IoU", "Dice": "mean Dice (F1)", "accuracy": "accuracy"}
        columns = LINES | {"precision": "Precision", "recall": "Recall"}
        scores = self._scores
        if scores is None:
            return ScoreParts(cards=cards, columns=columns)
        figures = [
            Figure(
                pictures=[charts.score_chart(rows, LINES, best_epoch)],
                caption="Scores on the validation images, 1 is perfect, means over classes. The best epoch "
                "has the highest IoU.",
            )
        ]
        if len(scores.classes) > 1:
            chart = charts.class_chart(rows, "IoU", "IoU", scores.classes)
            figures.append(Figure(pictures=[chart], caption="IoU of each class."))
        validation = Section(
            title="Scores of the last epoch",
            texts=[
                "On pieces of the validation images, as the network sees them. Cells without a label "
                "don't count."
            ],
            tables=[_score_table(scores), _confusion_table(scores)],
            notes=[
                "IoU, intersection over union: cells that are rightly of the class, as a share of those "
                "that are labelled or predicted so. Dice (the same as F1) counts the right ones twice. "
                f"Relaxed precision and recall, for thin objects, count a cell as right within {SLACK} "
                "cells of one of its class."
            ],
        )
        pictures = Section(
            title="Validation images, their labels, and what was predicted",
            legend=[("no label", IGNORED), *zip(scores.classes, cycle(COLOURS), strict=False)],
            figures=self._figures,
            layout="pairs",
        )
        return ScoreParts(cards=cards, columns=columns, figures=figures, sections=[validation, pictures])


def _coloured(raster: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """A class raster in the colours of its classes over a picture, (H, W, 3) uint8."""
    table = np.zeros((len(COLOURS) + 2, 3), np.uint8)
    table[1:-1], table[-1] = COLOURS, IGNORED
    index = np.where(
        raster > 0, (raster - 1) % len(COLOURS) + 1, np.where(raster == UNKNOWN, len(COLOURS) + 1, 0)
    )
    grey = shown.mean(axis=-1, keepdims=True)
    large = resize(table[index], shown.shape[:2]).astype(np.float32)
    coloured = resize(np.repeat((index > 0)[..., None], 3, -1).astype(np.uint8) * 255, shown.shape[:2]) > 127
    return np.where(coloured, 0.35 * grey + 0.65 * large, grey).astype(np.uint8)


def _score_table(scores: CellScores) -> Table:
    titles = ("IoU", "Dice", "precision", "recall", "relaxed_precision", "relaxed_recall", "relaxed_F1")
    rows = [
        Row(
            cells=[name, *(number(scores.of_class(index)[title]) for title in titles)],
            colour=COLOURS[(index - 1) % len(COLOURS)],
        )
        for index, name in enumerate(scores.classes, 1)
    ]
    if len(scores.classes) > 1:
        rows.append(Row(cells=["all (mean)", *(number(scores.mean(title)) for title in titles)], mark="all"))
    return Table(head=["Class", *(title.replace("_", " ") for title in titles)], rows=rows)


def _confusion_table(scores: CellScores) -> Table:
    return confusion_table(("background", *scores.classes), scores.counts.confusion, "Cells")
