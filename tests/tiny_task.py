"""The task of `tiny_network`, which imports Keras as late as real tasks do: where a network is made."""

from __future__ import annotations

from dataclasses import replace

from ann.evaluation.report import ScoreParts
from maskrcnn.task import TASK as WHOLE_TASK


def _build_network(config):
    from tiny_network import build_network

    return build_network(config)


def _layout(network):
    from ann.weights.layout import layer_groups

    return layer_groups(network)


def _set_trainable(network, stage, train_batch_norm):
    from tiny_network import set_trainable

    set_trainable(network, stage, train_batch_norm)


def _training_model(network, config):
    from tiny_network import TinyTraining

    return TinyTraining, (network,)


class NoScores:
    """A `Scorer` that has nothing to say."""

    def __init__(self, job, network, sharing):
        pass

    def score(self):
        return {}

    def parts(self, rows, best_epoch):
        return ScoreParts()


TASK = replace(
    WHOLE_TASK,
    build_network=_build_network,
    layout=_layout,
    set_trainable=_set_trainable,
    training_model=_training_model,
    make_scorer=NoScores,
)
