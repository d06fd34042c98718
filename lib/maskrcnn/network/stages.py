"""Which layers are trained: the stages in which initial weights are adapted to new data."""

from __future__ import annotations

import re

from ann.backbones.names import UPPER_LAYERS
from maskrcnn.network.model import MaskRCNN

STAGES = {
    "heads": r"mrcnn_|rpn_|fpn_",
    "4+": rf"{UPPER_LAYERS}|mrcnn_|rpn_|fpn_",
    "all": r"",
}


def set_trainable(network: MaskRCNN, stage: str, train_batch_norm: bool = False) -> None:
    """Train the layers of `stage` and no others. Call it before `compile`.

    Args:
        network: the network, changed in place.
        stage: "heads" (all but the backbone), "4+" (also the backbone's last two stages) or "all".
        train_batch_norm: normalise with the statistics of the batch and move the stored ones towards
            them, in the trained layers. Otherwise the stored statistics are used; gamma and beta of
            trained layers are trained either way.

    Raises:
        ValueError: no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"Expected a stage of {', '.join(STAGES)}, received {stage!r}")
    network.trainable = True
    for part in (network.backbone, network.feature_pyramid, network.rpn, network.box_head, network.mask_head):
        for layer in part.layers:
            layer.trainable = re.match(STAGES[stage], layer.name) is not None
    network.train_batch_norm = train_batch_norm
