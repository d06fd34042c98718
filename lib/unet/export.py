"""A U-Net in ONNX: pixel values in, probabilities of each cell out."""

from __future__ import annotations

import keras
import numpy as np

from ann.export.exported import Array, Exported, add_outputs
from ann.export.onnx_graph import OnnxGraph
from ann.inference.graph_layers import Value, channels_first, translate
from unet.config import UNetConfig


def export_network(network: keras.Model, config: UNetConfig) -> Exported:
    """The network for images of its config's size, any number at once.

    Raises:
        ValueError: a layer that can't be translated.
    """
    image = Array(
        name="images",
        dtype="float32",
        shape=(-1, config.bands, *config.image_shape),
        axes=("batch", "channel", "height", "width"),
        description="Pixel values as they are: the graph scales them",
    )
    graph = OnnxGraph("unet")
    pixels = graph.input(image.name, image.dtype, image.lengths)
    mean, scale = (
        np.float32(values).reshape(1, -1, 1, 1) for values in (config.band_mean, config.band_scale)
    )
    (logits,) = translate(network, graph, Value((pixels - mean) / scale, channels_first=True))
    logits = channels_first(graph, logits)
    if config.output_count == 1:
        values, first = graph.sigmoid(logits), "the class"
    else:
        values, first = graph.operation("Softmax", logits, axis=1), "the background, then each class"
    outputs = (
        Array(
            name="probabilities",
            dtype="float32",
            shape=(-1, config.output_count, *config.image_shape),
            axes=("batch", "class", "height", "width"),
            description=f"Of {first}. Values near the border are less certain: let images overlap",
            classes=True,
        ),
    )
    add_outputs(graph, outputs, [values])
    return Exported(
        config=config,
        graph=graph,
        title="U-Net",
        task="semantic-segmentation",
        image=image,
        outputs=outputs,
        parameters=network.count_params(),
    )
