"""A training job and its result, which travel between processes, and who is told about the progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ann.config import ModelConfig
from ann.data.dataset import Dataset, LabelledImage
from ann.task import Task
from ann.training.image_size import ImageSize
from ann.training.settings import TrainingSettings
from ann.weights import ModelFile


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything about a run, checked. It can be pickled and sent to processes on other machines.

    The files it names (images, initial model, logs) must be found under the same paths there.
    `settings.device_count` counts the devices of all processes. `imagenet`: the backbone starts
    from ImageNet weights. `epoch`: the run goes on after it; 0 for a new run. `held_out`: images that the
    final model is tested on; `options`: what the user asked for, for the report.
    """

    task: Task
    dataset: Dataset
    config: ModelConfig
    size: ImageSize
    settings: TrainingSettings
    initial: ModelFile | None = None
    skip_heads: bool = False
    imagenet: bool = False
    epoch: int = 0
    held_out: tuple[LabelledImage, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind."""

    last_epoch: int  # 0 if no epoch was completed
    best_epoch: int  # of all epochs in the table
    interrupted: bool
    ended_early: str = ""  # why, if neither interrupted nor through with all epochs


class Reporter(Protocol):
    """Who is told about the progress."""

    def message(self, text: str) -> None:
        """A line of text."""

    def percent(self, done: int, total: int) -> None:
        """How much of the run is done."""


class Silence:
    """A reporter that tells nobody."""

    def message(self, text: str) -> None:
        """A line of text."""

    def percent(self, done: int, total: int) -> None:
        """How much of the run is done."""


class Sender:
    """A reporter that hands everything on as (name of the method, its arguments), say to another process.

    Progress is sent when the percentage changes.
    """

    def __init__(self, send: Callable[[str, tuple], None]):
        self._send = send
        self._percent = -1

    def message(self, text: str) -> None:
        """A line of text."""
        self._send("message", (text,))

    def percent(self, done: int, total: int) -> None:
        """How much of the run is done."""
        if 100 * done // total != self._percent:
            self._percent = 100 * done // total
            self._send("percent", (done, total))
