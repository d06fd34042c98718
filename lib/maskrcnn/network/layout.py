"""Where a network's variables stand in a legacy model file."""

from __future__ import annotations

from ann.weights.layout import Groups, layer_groups
from maskrcnn.network.model import MaskRCNN


def legacy_layout(network: MaskRCNN) -> Groups:
    """Groups of the model file in its order, each with its datasets: [(group, [(dataset, variable)])].

    A group is a layer, but for `rpn_model`, which holds the three layers of the proposal head. Layers
    without weights, empty groups in files from elsewhere, are left out.
    """
    groups = [
        *layer_groups(network.backbone),
        *layer_groups(network.feature_pyramid),
        ("rpn_model", [dataset for _, datasets in layer_groups(network.rpn) for dataset in datasets]),
        *layer_groups(network.box_head),
        *layer_groups(network.mask_head),
    ]
    return groups
