"""What a network must offer to be trained, stored and scored by this library: a `Task`.

`ann` imports no network. What differs between networks comes in as a task, one value for each network, made
in `maskrcnn.task`, `unet.task` and `classifier.task`. Its functions import Keras when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import keras

    from ann.config import ModelConfig
    from ann.evaluation.report import ScoreParts, Section
    from ann.training.job import Job
    from ann.training.model import TrainingModel
    from ann.weights.kind import ModelKind


@dataclass(frozen=True)
class Feed:
    """Batches for training and validation, by number, as the task's training model takes them.

    Called from several threads; a batch follows from its number and the job's seed alone.
    """

    training_batch: Callable[[int], dict[str, np.ndarray]]
    validation_batch: Callable[[int], dict[str, np.ndarray]]
    validation_steps: int


@dataclass(frozen=True, kw_only=True)
class TestOutcome:
    """Scores on images that were left out: for a JSON file, in a few lines, and as a part of the report."""

    __test__ = False  # no test case, whatever pytest may think of the name

    content: Mapping
    text: str
    section: Section


class Scorer(Protocol):
    """Scores the network, with the weights it has at that time, on labelled images.

    Of several processes each scores a part of the images; all must call `score` and `test`, and get the same.
    """

    def score(self) -> dict[str, float]:
        """Columns of the row of an epoch: scores on the validation images; none without such images."""

    def parts(self, rows: Sequence[Mapping[str, str]], best_epoch: int) -> ScoreParts:
        """What the report says of the scores. rows: the table's, as text."""

    def test(self, model: str) -> TestOutcome:
        """Score on the images that were left out. model: the file that the weights are from."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A network as this library deals with it. A task can be pickled: its members are functions of modules.

    kind: of its model files; title: for people.
    prefix: names of model files begin with it.
    labels: what it can learn from, of the kinds of `Dataset.labels`.
    memory_hint: which options make a step smaller, besides images_per_gpu.
    ranking: the column by whose highest value the best epoch is chosen; main_scores: columns that are told.
    build_network: from a config, under Keras' global dtype policy; `network.train_batch_norm` can be set.
    backbone: the part of a network that can start from ImageNet weights.
    layout: where the network's variables stand in a model file, see `weights.load_weights`.
    set_trainable: train the layers of a stage ("heads", "4+" or "all") and no others; the last argument says
        whether normalisations are trained with the batch's statistics.
    training_model: a class of `TrainingModel`, and what it is made of.
    make_feed: batches of a job; the slice says which rows of each batch are wanted.
    make_scorer: of a job, for the network that is trained; with a `Sharing`, processes score together.
    """

    kind: ModelKind
    title: str
    prefix: str
    labels: tuple[str, ...]
    memory_hint: str
    ranking: str
    main_scores: tuple[str, ...]
    build_network: Callable[[ModelConfig], keras.Model]
    backbone: Callable[[keras.Model], keras.Model]
    layout: Callable[[keras.Model], list]
    set_trainable: Callable[[keras.Model, str, bool], None]
    training_model: Callable[[keras.Model, ModelConfig], tuple[type[TrainingModel], tuple]]
    make_feed: Callable[[Job, slice], Feed]
    make_scorer: Callable[..., Scorer]

    @property
    def name(self) -> str:
        """The network's name, a key of `config.MODULES`."""
        return self.kind.config.network
