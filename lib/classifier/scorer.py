"""Score a classifier while it is trained, and say in the report how well it tells classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ann.data.samples.batches import ValidationBatches, padded_batches
from ann.data.targets.classes import IMAGE_CLASSES
from ann.devices.sharing import ALONE, Sharing
from ann.evaluation import charts
from ann.evaluation.pictures import COLOURS, jpeg, shown_pixels
from ann.evaluation.report import Figure, Row, ScoreParts, Section, Table, count, number
from ann.evaluation.tables import confusion_table, known
from ann.task import TestOutcome
from ann.training.job import Job
from ann.training.preparation import validation_batches, validation_settings
from classifier.prediction import Network
from classifier.scores import ClassScores

PICTURES = 6  # of validation images that were told wrong
PICTURES_PER_CLASS = 2  # of images that were left out
MOST_PICTURES = 40
MOST_BARS = 8
LINES = {"balanced_accuracy": "balanced accuracy", "val_accuracy": "accuracy", "F1": "F1 (mean)"}
TITLES = ("precision", "recall", "F1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What the network said of the images of some batches."""

    windows: ValidationBatches
    scores: ClassScores

    def picture(self, index: int) -> Figure:
        """An image with bars of its probabilities."""
        image, _ = self.windows.window(index)
        sample, config = self.windows.sample(index), self.windows.config
        shown = shown_pixels(sample.image, sample.content, config.band_mean, config.band_scale, image.dtype)
        values = self.scores.probabilities[index]
        label = config.classes[self.scores.labels[index]]
        ranked = np.argsort(-values, kind="stable")[:MOST_BARS].tolist()
        bars = {config.classes[one]: float(values[one]) for one in ranked}
        bars.setdefault(label, float(values[self.scores.labels[index]]))
        told = config.classes[ranked[0]]
        return Figure(
            pictures=[jpeg(shown), charts.bar_chart(bars, label, "probability")],
            caption=f"{image.name}: {label}, told as {told} ({'right' if told == label else 'wrong'})",
        )


class ClassScorer:
    """Accuracy, F1 and their like on validation images and on those left out; a `Scorer`.

    network: gives probabilities with the weights as they are at that time.
    """

    def __init__(self, job: Job, network: Network, sharing: Sharing = ALONE):
        self._job, self._network, self._sharing = job, network, sharing
        self._windows: ValidationBatches | None = validation_batches(job, job.config, IMAGE_CLASSES)
        self._told: Told | None = None

    def score(self) -> dict[str, float]:
        """See `Scorer`."""
        if self._windows is None:
            return {}
        self._told = self._tell(self._windows)
        return self._told.scores.columns()

    def _tell(self, windows: ValidationBatches) -> Told:
        settings, classes = self._job.settings, self._job.config.classes
        found = {}
        for numbers, samples, images in padded_batches(
            windows, settings.batch_size, settings.workers, self._sharing
        ):
            told = self._network(images)[: len(samples)]
            for index, sample, values in zip(numbers, samples, told, strict=True):
                found[index] = sample.class_id - 1, values
        labels, probabilities = zip(*self._sharing.collect(found), strict=True)
        scores = ClassScores(classes, np.array(labels, dtype=np.int64), np.stack(probabilities))
        return Told(windows=windows, scores=scores)

    def test(self, model: str) -> TestOutcome:
        """See `Scorer`."""
        job = self._job
        told = self._tell(
            ValidationBatches(
                job.held_out,
                job.config,
                validation_settings(job.size),
                batch_size=job.settings.batch_size,
                kind=IMAGE_CLASSES,
            )
        )
        scores, classes = told.scores, job.config.classes
        columns = {name.removeprefix("val_"): value for name, value in scores.columns().items()}
        content = {
            "all": known({name: columns[name] for name in ("accuracy", *list(columns)[1:4])}),
            "classes": {name: known(scores.of_class(index)) for index, name in enumerate(classes)},
            "confusion": scores.confusion.tolist(),
            "told": [
                {
                    "image": image.name,
                    "class": classes[label],
                    "probabilities": dict(zip(classes, np.round(values, 4).tolist(), strict=True)),
                }
                for image, label, values in zip(
                    job.held_out, scores.labels, scores.probabilities, strict=True
                )
            ],
        }
        shown = [
            index
            for label in range(len(classes))
            for index in np.flatnonzero(scores.labels == label)[:PICTURES_PER_CLASS].tolist()
        ]
        section = Section(
            title="Test: images that were left out",
            texts=[
                f"The model {model} was tried on {count(len(job.held_out), 'image')} that had no part in the "
                "training or in the choice of the best epoch. These are the most honest figures of this "
                "report. Beside an image stand its probabilities, that of its own class in strong colour."
            ],
            tables=[_score_table(scores), confusion_table(classes, scores.confusion, "Images")],
            figures=[told.picture(index) for index in shown[:MOST_PICTURES]],
            layout="pairs",
        )
        return TestOutcome(content=content, text=_lines(scores), section=section)

    def parts(self, rows: Sequence[Mapping[str, str]], best_epoch: int) -> ScoreParts:
        """See `Scorer`."""
        cards = {"val_accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "F1": "mean F1"}
        columns = {"accuracy": "Accuracy in training"} | LINES | {"calibration_error": "Calibration error"}
        accuracy = Figure(
            pictures=[charts.pair_chart(rows, "accuracy", "accuracy")],
            caption="Share of right answers on the training images (which are changed by chance) and on the "
            "validation images. When they part, the model learns the images by heart.",
        )
        if self._told is None:
            return ScoreParts(cards=cards, columns=columns, figures=[accuracy])
        scores = self._told.scores
        balanced = Figure(
            pictures=[charts.score_chart(rows, LINES, best_epoch)],
            caption="Scores on the validation images, 1 is perfect. In the balanced accuracy each class "
            "counts alike, however many images it has; the best epoch has the highest.",
        )
        by_class = Figure(
            pictures=[charts.class_chart(rows, "F1", "F1", scores.classes)], caption="F1 of each class."
        )
        validation = Section(
            title="Scores of the last epoch",
            texts=[f"On {count(len(scores.labels), 'validation image')}."],
            tables=[_score_table(scores), confusion_table(scores.classes, scores.confusion, "Images")],
            figures=[
                Figure(
                    pictures=[charts.calibration_chart(scores.calibration())],
                    caption="Whether probabilities are true: of the images that were given 0.8, eight of ten "
                    f"should be right. The mean distance is {scores.calibration_error:.3f}.",
                )
            ],
        )
        wrong = np.flatnonzero(scores.predicted != scores.labels)
        worst = wrong[np.argsort(-scores.probabilities[wrong].max(axis=1), kind="stable")][:PICTURES]
        mistakes = Section(
            title="Validation images that were told wrong, the surest first",
            texts=[] if len(worst) else ["There is none."],
            figures=[self._told.picture(index) for index in worst.tolist()],
            layout="pairs",
        )
        return ScoreParts(
            cards=cards,
            columns=columns,
            figures=[accuracy, balanced, by_class],
            sections=[validation, mistakes],
        )


def _score_table(scores: ClassScores) -> Table:
    rows = [
        Row(
            cells=[name, *(number(scores.of_class(index)[title]) for title in TITLES)],
            colour=COLOURS[index % len(COLOURS)],
        )
        for index, name in enumerate(scores.classes)
    ]
    rows.append(Row(cells=["all (mean)", *(number(scores.mean(title)) for title in TITLES)], mark="all"))
    return Table(head=["Class", *TITLES], rows=rows)


def _lines(scores: ClassScores) -> str:
    """The scores for people."""
    first = f"accuracy {scores.accuracy:.3f}, balanced accuracy {scores.balanced_accuracy:.3f}"
    return "\n".join(
        [
            first,
            *(
                f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores.of_class(index).items())
                for index, name in enumerate(scores.classes)
            ),
        ]
    )
