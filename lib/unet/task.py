"""The U-Net as a task: where the library finds what it needs of it."""

from __future__ import annotations

import re

from ann.backbones.names import UPPER_LAYERS
from ann.data.dataset import CELL_LABELS, OBJECT_LABELS
from ann.data.targets.cells import CELLS
from ann.devices.sharing import ALONE, Sharing
from ann.task import Feed, Scorer, Task
from ann.training.job import Job
from ann.training.preparation import feed_of
from unet.config import UNetConfig
from unet.model_file import KIND

OWN = "up|join|decoder|logits"  # layers that no backbone has
STAGES = {"heads": rf"({OWN})", "4+": rf"({OWN}|{UPPER_LAYERS})", "all": ""}


def _build_network(config: UNetConfig):
    from unet.network.model import build_network

    return build_network(config)


def _backbone(network):
    return network.get_layer("encoder")


def _layout(network):
    from ann.weights.layout import layer_groups

    return layer_groups(network)


def _set_trainable(network, stage: str, train_batch_norm: bool) -> None:
    from ann.weights.layout import all_layers

    for layer in all_layers(network):
        layer.trainable = re.match(STAGES[stage], layer.name) is not None
    network.train_batch_norm = train_batch_norm


def _training_model(network, config: UNetConfig):
    from unet.network.training import UNetTraining

    return UNetTraining, (network, config)


def _make_feed(job: Job, part: slice) -> Feed:
    return feed_of(job, CELLS, part)


def _make_scorer(job: Job, network, sharing: Sharing = ALONE) -> Scorer:
    from ann.inference.field_of_view import reach
    from unet.prediction import probability_network
    from unet.scorer import CellScorer
    from unet.tiling import cell_settings

    largest = max((max(image.height, image.width) for image in job.held_out), default=None)
    settings = cell_settings(job.config, reach(network, job.config.size_multiple), largest=largest)
    return CellScorer(job, probability_network(network), settings, sharing)


TASK = Task(
    kind=KIND,
    title="U-Net",
    prefix="unet",
    labels=(CELL_LABELS, OBJECT_LABELS),
    memory_hint="tile_size, or choose a smaller architecture",
    ranking="IoU",
    main_scores=("IoU", "Dice"),
    build_network=_build_network,
    backbone=_backbone,
    layout=_layout,
    set_trainable=_set_trainable,
    training_model=_training_model,
    make_feed=_make_feed,
    make_scorer=_make_scorer,
)
