"""What is found out about a run while it goes on, and what is written of it: scores, report, event file."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata

from ann.config import MODULES
from ann.evaluation.event_file import EventFile
from ann.evaluation.report import Report, Section, write_report
from ann.task import Scorer, TestOutcome
from ann.training import log
from ann.training.job import Job

RUN_COLUMNS = ("steps", "learning_rate", "seconds", "scoring_seconds")
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "pycocotools")


class RunRecord:
    """Scores the network after each epoch, and keeps the report and the event file up to date.

    facts: names and values about model and devices, for the report. writes: whether this process does.
    """

    def __init__(self, job: Job, scorer: Scorer, facts: Mapping[str, str], *, writes: bool = True):
        self._job, self._scorer, self._writes = job, scorer, writes
        self._facts = dict(facts) | _versions()
        self._test: Section | None = None
        self._events = EventFile(job.settings.events_path, first_step=job.epoch + 1)

    def score(self) -> dict[str, float]:
        """Columns for the table: the scores on the validation windows, and the seconds that took."""
        started = time.monotonic()
        columns = self._scorer.score()
        return columns | {"scoring_seconds": time.monotonic() - started} if columns else {}

    def write(self, row: Mapping[str, float | str]) -> None:
        """Add an epoch, whose row is in the table, to report and event file."""
        numbers = {name: float(value) for name, value in row.items() if not isinstance(value, str)}
        epoch = int(numbers.pop("epoch"))
        self._events.add(epoch, {f"{_group(name)}/{name}": value for name, value in numbers.items()})
        self._write_report()

    def test(self, model: str) -> TestOutcome:
        """Score the network, which has the weights of the file `model`, on the images that were left out.

        The scores go to a JSON file and to the report.
        """
        path = self._job.settings.test_path
        outcome = self._scorer.test(model)
        if not self._writes:
            return outcome
        self._test = outcome.section
        names = [image.name for image in self._job.held_out]
        content = {"model": model, "images": names, **outcome.content}
        temporary = path.with_suffix(".json.part")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        self._write_report()
        return outcome

    def _write_report(self) -> None:
        job, task = self._job, self._job.task
        rows = log.read_rows(job.settings.table_path)
        best_epoch = log.best_epoch(job.settings.table_path, task.ranking)
        report = Report(
            name=job.settings.name,
            subtitle=f"{task.title}, trained with {MODULES[task.name][0]} in GRASS GIS.",
            rows=rows,
            epochs=job.settings.epochs,
            best_epoch=best_epoch,
            dataset=job.dataset,
            held_out=job.held_out,
            scores=self._scorer.parts(rows, best_epoch),
            test=self._test,
            options=job.options,
            facts=self._facts,
        )
        write_report(job.settings.report_path, report)


def _group(name: str) -> str:
    """Under which heading TensorBoard shows a column."""
    if name.startswith("val_"):
        return "validation_loss"
    if name.endswith("loss"):
        return "loss"
    return "run" if name in RUN_COLUMNS else "scores"


def _versions() -> dict[str, str]:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {"Versions": ", ".join(found), "System": platform.platform()}
