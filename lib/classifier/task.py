"""The classifier as a task: where the library finds what it needs of it."""

from __future__ import annotations

from ann.data.dataset import IMAGE_LABELS
from ann.data.targets.classes import IMAGE_CLASSES
from ann.devices.sharing import ALONE, Sharing
from ann.task import Feed, Scorer, Task
from ann.training.job import Job
from ann.training.preparation import feed_of
from classifier.config import UPPER, ClassifierConfig
from classifier.model_file import KIND


def _build_network(config: ClassifierConfig):
    from classifier.network.model import build_network

    return build_network(config)


def _backbone(network):
    return network.get_layer("backbone")


def _layout(network):
    from ann.weights.layout import layer_groups

    return layer_groups(network)


def _set_trainable(network, stage: str, train_batch_norm: bool) -> None:
    from ann.weights.layout import all_layers

    layers = all_layers(_backbone(network))
    names = [layer.name for layer in layers]
    first = {"heads": len(layers), "4+": names.index(UPPER[network.name]), "all": 0}[stage]
    for number, layer in enumerate(layers):
        layer.trainable = number >= first
    network.train_batch_norm = train_batch_norm


def _training_model(network, config: ClassifierConfig):
    from classifier.network.training import ClassifierTraining

    return ClassifierTraining, (network, config)


def _make_feed(job: Job, part: slice) -> Feed:
    return feed_of(job, IMAGE_CLASSES, part)


def _make_scorer(job: Job, network, sharing: Sharing = ALONE) -> Scorer:
    from classifier.prediction import probability_network
    from classifier.scorer import ClassScorer

    return ClassScorer(job, probability_network(network), sharing)


TASK = Task(
    kind=KIND,
    title="Classifier",
    prefix="classifier",
    labels=(IMAGE_LABELS,),
    memory_hint="image_size, or choose a smaller backbone",
    ranking="balanced_accuracy",
    main_scores=("val_accuracy", "balanced_accuracy"),
    build_network=_build_network,
    backbone=_backbone,
    layout=_layout,
    set_trainable=_set_trainable,
    training_model=_training_model,
    make_feed=_make_feed,
    make_scorer=_make_scorer,
)
