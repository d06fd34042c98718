"""Mask R-CNN as a task: where the library finds what it needs of it."""

from __future__ import annotations

from ann.data.dataset import OBJECT_LABELS
from ann.devices.sharing import ALONE, Sharing
from ann.task import Feed, Scorer, Task
from ann.training.job import Job
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import KIND


def _build_network(config: MaskRCNNConfig):
    from maskrcnn.network.model import build_network

    return build_network(config)


def _backbone(network):
    return network.backbone


def _layout(network):
    from maskrcnn.network.layout import legacy_layout

    return legacy_layout(network)


def _set_trainable(network, stage: str, train_batch_norm: bool) -> None:
    from maskrcnn.network.stages import set_trainable

    set_trainable(network, stage, train_batch_norm)


def _training_model(network, config: MaskRCNNConfig):
    from maskrcnn.network.training import TrainingNetwork

    return TrainingNetwork, (network,)


def _make_feed(job: Job, part: slice) -> Feed:
    from maskrcnn.preparation import make_feed

    return make_feed(job, part)


def _make_scorer(job: Job, network, sharing: Sharing = ALONE) -> Scorer:
    from maskrcnn.network.inference import Detector
    from maskrcnn.scores.scorer import DetectionScorer

    return DetectionScorer(job, Detector(network), sharing)


TASK = Task(
    kind=KIND,
    title="Mask R-CNN",
    prefix="mask_rcnn",
    labels=(OBJECT_LABELS,),
    memory_hint="images_max_dim or rois_per_image, set mini_mask_size=56,56, or choose a smaller backbone",
    ranking="mask_AP",
    main_scores=("box_AP", "mask_AP", "mask_AP50"),
    build_network=_build_network,
    backbone=_backbone,
    layout=_layout,
    set_trainable=_set_trainable,
    training_model=_training_model,
    make_feed=_make_feed,
    make_scorer=_make_scorer,
)
