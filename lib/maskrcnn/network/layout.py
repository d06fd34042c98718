"""Where a network's variables stand in a legacy model file."""

from __future__ import annotations

import keras

from maskrcnn.network.model import MaskRCNN


def legacy_layout(network: MaskRCNN) -> list[tuple[str, list[tuple[str, keras.Variable]]]]:
    """Groups of the model file in its order, each with its datasets: [(group, [(dataset, variable)])].

    A group is a layer, but for `rpn_model`, which holds the three layers of the proposal head. Layers
    without weights, empty groups in files from elsewhere, are left out.
    """
    groups = [
        *_layer_groups(network.backbone),
        *_layer_groups(network.feature_pyramid),
        ("rpn_model", [dataset for _, datasets in _layer_groups(network.rpn) for dataset in datasets]),
        *_layer_groups(network.box_head),
        *_layer_groups(network.mask_head),
    ]
    return groups


def _layer_groups(model: keras.Model):
    return [
        (layer.name, [(f"{layer.name}/{variable.name}:0", variable) for variable in layer.weights])
        for layer in model.layers
        if layer.weights
    ]
