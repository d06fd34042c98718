"""The known weights of the reference numbers, drawn again on every machine.

Kernels and biases come from a generator of each layer, seeded by its name; batch normalisation is stored in
`reference/`, measured so that activations keep their size.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / "reference"
# standard deviation of a kernel times the root of its fan-in, where it is not that of a layer before a ReLU
SPREAD = {
    **dict.fromkeys(("fpn_c2p2", "fpn_c3p3", "fpn_c4p4", "fpn_c5p5", "rpn_bbox_pred"), 0.7),
    **dict.fromkeys(("fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5"), 0.8),
    "rpn_class_raw": 0.9,
    "mrcnn_bbox_fc": 1.0,
    "mrcnn_class_logits": 2.0,
    "mrcnn_mask": 2.5,
}


def legacy_weights(backbone: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every tensor of the reference's model file with three classes.

    Args:
        backbone: "resnet50" or "resnet101".
        shapes: shape of each dataset by its name, e.g. "conv1/kernel:0".

    Returns:
        Arrays (float32) by dataset name.
    """
    with np.load(REFERENCE / f"batchnorm_{backbone}.npz") as stored:
        arrays = {name: stored[name] for name in shapes if name in stored}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition("/")
        if kind == "kernel:0":
            bias_name = f"{layer}/bias:0"
            arrays[name], arrays[bias_name] = _draw(layer, shape, shapes[bias_name])
    return arrays


def _draw(layer: str, kernel_shape, bias_shape):
    random = np.random.RandomState(zlib.crc32(layer.encode()) & 0x7FFFFFFF)
    inputs = kernel_shape[3] if layer == "mrcnn_mask_deconv" else np.prod(kernel_shape[:-1])
    kernel = random.normal(0, SPREAD.get(layer, np.sqrt(2.0)) / np.sqrt(inputs), kernel_shape)
    bias = random.normal(0, 0.1, bias_shape)
    if layer == "conv1":
        kernel = kernel * (1 / 60.0)  # the input is in units of grey values
    if layer == "mrcnn_class_logits":
        bias = np.array([1.8, 1.2, -1.2])
    return kernel.astype(np.float32), bias.astype(np.float32)


def legacy_network(config):
    """The network that `config` describes, of three classes, with the weights of the reference."""
    from ann.backbones.initial import nothing_drawn
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network

    with nothing_drawn():
        network = build_network(config)
    variables = {name: variable for _, datasets in legacy_layout(network) for name, variable in datasets}
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for name, values in legacy_weights(config.backbone, shapes).items():
        variables[name].assign(values)
    return network
