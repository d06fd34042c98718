"""What is found out about a run while it goes on, and what is written of it: scores, report, event file."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

import numpy as np

from ann.data.samples.batches import ValidationBatches
from ann.evaluation.event_file import EventFile
from ann.evaluation.report import Report, TestScores, write_report
from ann.training import log
from ann.training.preparation import validation_settings
from ann.training.worker import Job
from maskrcnn.scores.average_precision import Scores, score
from maskrcnn.scores.pictures import Pair, draw_pair, pick_windows
from maskrcnn.scores.scenes import detect_image
from maskrcnn.scores.windows import Detector, detect_windows

PICTURES = 6
PICTURE_CONFIDENCE = 0.5  # of classes of which no better one is known
ALL_INSTANCES = 1_000_000  # no label is left out of a window
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "pycocotools")


class RunRecord:
    """Scores the network after each epoch, and keeps the report and the event file up to date.

    detector: detects with the network's weights as they are at that time.
    facts: names and values about model and devices, for the report.
    """

    def __init__(self, job: Job, detector: Detector, facts: Mapping[str, str]):
        self._job, self._detector = job, detector
        self._facts = dict(facts) | _versions()
        self._windows = _scored_windows(job)
        self._scores: Scores | None = None
        self._pairs: tuple[Pair, ...] = ()
        self._test: TestScores | None = None
        self._events = EventFile(job.settings.events_path, first_step=job.epoch + 1)

    def score(self) -> dict[str, float]:
        """Columns for the table: the scores on the validation windows, and the seconds that took."""
        if self._windows is None:
            return {}
        started = time.monotonic()
        job = self._job
        results = detect_windows(
            self._detector, self._windows, batch_size=job.settings.batch_size, workers=job.settings.workers
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
            for number in pick_windows(self._windows, results, PICTURES)
        )
        return self._scores.columns() | {"scoring_seconds": time.monotonic() - started}

    def write(self, row: Mapping[str, float | str]) -> None:
        """Add an epoch, whose row is in the table, to report and event file."""
        numbers = {name: float(value) for name, value in row.items() if not isinstance(value, str)}
        epoch = int(numbers.pop("epoch"))
        self._events.add(epoch, {f"{_group(name)}/{name}": value for name, value in numbers.items()})
        self._write_report()

    def test(self, model: str) -> Scores:
        """Score the network, which has the weights of the file `model`, on the images that were left out.

        The scores go to a JSON file and to the report.
        """
        job = self._job
        results = [
            detect_image(self._detector, image, job.config, batch_size=job.settings.batch_size)
            for image in job.held_out
        ]
        scores = score(results, job.config.classes)
        names = tuple(image.name for image in job.held_out)
        self._test = TestScores(scores=scores, model=model, images=names)
        content = {"model": model, "images": names, "all": _by_kind(scores)} | {
            "classes": {
                name: {"objects": int(count), **_by_kind(scores, name)}
                for name, count in zip(scores.classes, scores.truth, strict=True)
            }
        }
        temporary = job.settings.test_path.with_suffix(".json.part")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, job.settings.test_path)
        self._write_report()
        return scores

    def _write_report(self) -> None:
        job = self._job
        report = Report(
            name=job.settings.name,
            rows=log.read_rows(job.settings.table_path),
            epochs=job.settings.epochs,
            best_epoch=log.best_epoch(job.settings.table_path),
            dataset=job.dataset,
            held_out=job.held_out,
            scores=self._scores,
            pairs=self._pairs,
            test=self._test,
            options=job.options,
            facts=self._facts,
        )
        write_report(job.settings.report_path, report)


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


def _scored_windows(job: Job) -> ValidationBatches | None:
    """The windows that the validation loss is measured on; None if there are none."""
    settings = job.settings
    if not job.dataset.validation or not settings.validation_steps:
        return None
    return ValidationBatches(
        job.dataset.validation,
        replace(job.config, max_instances=ALL_INSTANCES),
        validation_settings(job.size),
        batch_size=settings.batch_size,
        limit=settings.validation_steps,
    )


def _group(name: str) -> str:
    """Under which heading TensorBoard shows a column."""
    if name.startswith("val_"):
        return "validation_loss"
    if name.startswith(("mask_A", "box_A")):
        return "scores"
    return "loss" if name.endswith("loss") else "run"


def _versions() -> dict[str, str]:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {"Versions": ", ".join(found), "System": platform.platform()}
