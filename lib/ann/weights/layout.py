"""Where the variables of a network stand in a model file: a group for each layer that has some."""

from __future__ import annotations

import keras

Groups = list[tuple[str, list[tuple[str, keras.Variable]]]]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a functional model and of the models in it, in their order."""
    found = []
    for layer in model.layers:
        found += all_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def layer_groups(model: keras.Model) -> Groups:
    """Groups of a model file in its order, each with its datasets: [(group, [(dataset, variable)])]."""
    return [
        (layer.name, [(f"{layer.name}/{variable.name}:0", variable) for variable in layer.weights])
        for layer in all_layers(model)
        if layer.weights
    ]
