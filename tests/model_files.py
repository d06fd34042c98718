"""Small model files for the tests of `ann.weights`: the legacy layout with few and tiny layers."""

from __future__ import annotations

import h5py
import numpy as np

from maskrcnn.config import MaskRCNNConfig

STAGE_4 = {"resnet18": "ab", "resnet50": "abcdef", "resnet101": "abcdefghijklmnopqrstuvw"}


class Variable:
    """What a Keras variable is to the file's code: `shape`, `assign`, `numpy`; counts its assignments."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=np.float32)
        self.assigned = 0

    @property
    def shape(self):
        return self.values.shape

    def assign(self, values):
        assert values.shape == self.values.shape
        assert values.dtype == np.float32
        self.values = values
        self.assigned += 1

    def numpy(self):
        return self.values


def convolution(name, shape):
    """Shapes of a convolution's or dense layer's arrays."""
    return (name, [(f"{name}/kernel:0", shape), (f"{name}/bias:0", (shape[-1],))])


def normalisation(name, channels):
    """Shapes of a batch normalisation's arrays."""
    kinds = ("gamma", "beta", "moving_mean", "moving_variance")
    return (name, [(f"{name}/{kind}:0", (channels,)) for kind in kinds])


def small_shapes(backbone="resnet50", classes=3, bands=3):
    """[(layer, [(dataset, shape)])] with the names of a real network and small numbers."""
    layers = [("input_image", []), convolution("conv1", (7, 7, bands, 4)), normalisation("bn_conv1", 4)]
    branches = "ab" if backbone == "resnet18" else "abc"
    for block in STAGE_4[backbone]:
        layers += [convolution(f"res4{block}_branch2{branch}", (1, 1, 4, 4)) for branch in branches]
        layers.append((f"res4{block}_out", []))
    rpn = [convolution("rpn_conv_shared", (3, 3, 4, 8)), convolution("rpn_class_raw", (1, 1, 8, 6))]
    rpn.append(convolution("rpn_bbox_pred", (1, 1, 8, 12)))
    layers.append(("rpn_model", [array for _, arrays in rpn for array in arrays]))
    layers.append(convolution("mrcnn_class_logits", (8, classes)))
    layers.append(convolution("mrcnn_bbox_fc", (8, 4 * classes)))
    layers.append(
        (
            "mrcnn_mask_deconv",
            [("mrcnn_mask_deconv/kernel:0", (2, 2, 5, 4)), ("mrcnn_mask_deconv/bias:0", (5,))],
        )
    )
    layers.append(convolution("mrcnn_mask", (1, 1, 4, classes)))
    return layers


def small_network(seed=0, **kinds):
    """A layout as `legacy_layout` gives it, with random values."""
    rng = np.random.default_rng(seed)
    return [
        (layer, [(name, Variable(rng.normal(size=shape))) for name, shape in arrays])
        for layer, arrays in small_shapes(**kinds)
    ]


def small_config(backbone="resnet50", classes=3, bands=3, **values):
    """The description that fits `small_network`."""
    names = tuple(f"kind {number}" for number in range(1, classes))
    mean = tuple(100.0 + number for number in range(bands))
    return MaskRCNNConfig(
        classes=names, backbone=backbone, band_mean=mean, band_scale=(2.0,) * bands, **values
    )


def values_of(layout):
    """{(layer, position): array} of a layout."""
    return {
        (layer, position): variable.values.copy()
        for layer, variables in layout
        for position, (_, variable) in enumerate(variables)
    }


def write_legacy(path, layout, root="/", attributes=True, mode="w"):
    """A file as Keras 2 wrote it, without our description.

    `root`: the group with the layers; `attributes`: False leaves layer_names and weight_names out.
    """
    with h5py.File(path, mode) as file:
        top = file.require_group(root)
        if attributes:
            top.attrs["layer_names"] = [name.encode() for name, _ in layout]
        top.attrs["backend"] = b"tensorflow"
        top.attrs["keras_version"] = b"2.2.4"
        for layer, variables in layout:
            group = top.create_group(layer)
            if attributes:
                group.attrs["weight_names"] = [name.encode() for name, _ in variables]
            for name, variable in variables:
                group[name] = variable.values
    return path


def weights_of(path):
    """{name: array} of a model file, without the state of an optimiser."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return {name: values for name, values in arrays.items() if not name.startswith("training_state")}
