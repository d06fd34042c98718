"""The tensors of a checkpoint as the arrays of our layers.

Other programs keep kernels as (out, in, y, x) where they are (y, x, in, out) here, and boxes and deltas by x
before y. Their dense layers see pooled features channel by channel, ours place by place. Deltas of the
proposals are not in units of a deviation there, and detectron2 has its background behind the classes and no
boxes and masks for it. All of that is put right in the weights, so that the network needs no other form for
it.

A plan is {layer: [(our array's name, its shape, names of the sources, rule)]}; a rule gets arrays and gives
one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

from maskrcnn.config import MaskRCNNConfig
from maskrcnn.foreign.recognition import BLOCKS, Network

CHANNELS = 256
POOLED = 7
ANCHORS = 3
STATISTICS = ("weight", "bias", "running_mean", "running_var")
OURS = ("gamma", "beta", "moving_mean", "moving_variance")


class Source(NamedTuple):
    """A tensor of the checkpoint and the shape it must have."""

    name: str
    shape: tuple[int, ...]


class Target(NamedTuple):
    """An array of ours: `rule` makes it of the sources' arrays."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    rule: Callable[..., np.ndarray]


Plan = dict[str, list[Target]]


def plan(network: Network, *, reverse_bands: bool = False) -> Plan:
    """All layers of our network, in the order of the model file, and where their arrays come from.

    reverse_bands: the program reads the bands from the last to the first.
    """
    layers = (_torchvision if network.program == "torchvision" else _detectron2)(network)
    if reverse_bands:
        kernel, bias = layers["conv1"]
        layers["conv1"] = [kernel._replace(rule=reversed_bands), bias]
    return layers


# rules


def transposed(kernel: np.ndarray) -> np.ndarray:
    """(out, in, y, x) -> (y, x, in, out), or (out, in) -> (in, out)."""
    return np.ascontiguousarray(kernel.transpose((2, 3, 1, 0) if kernel.ndim == 4 else (1, 0)))


def as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def zeros(*, count: int) -> np.ndarray:
    """The bias of a convolution that has none."""
    return np.zeros(count, np.float32)


def reversed_bands(kernel: np.ndarray) -> np.ndarray:
    """The first kernel for images in red, green, blue, of one for blue, green, red."""
    return transposed(kernel)[:, :, ::-1]


def whole_kernel(matrix: np.ndarray) -> np.ndarray:
    """(out, C * 49) over channel by channel features -> (7, 7, C, out)."""
    return transposed(matrix.reshape(len(matrix), -1, POOLED, POOLED))


def pointwise_kernel(matrix: np.ndarray) -> np.ndarray:
    """(out, in) -> (1, 1, in, out)."""
    return transposed(matrix)[None, None]


def folded_kernel(kernel, gamma, beta, mean, variance, *, epsilon: float) -> np.ndarray:
    """A convolution without bias and its normalisation in one, computed in float64."""
    factor = gamma.astype(float) / np.sqrt(variance.astype(float) + epsilon)
    return transposed((kernel * factor[:, None, None, None]).astype(np.float32))


def folded_bias(gamma, beta, mean, variance, *, epsilon: float) -> np.ndarray:
    factor = gamma.astype(float) / np.sqrt(variance.astype(float) + epsilon)
    return (beta - mean * factor).astype(np.float32)


def with_background_logits(values: np.ndarray) -> np.ndarray:
    """One logit for each anchor -> two, background's being 0. (A, ...) -> (..., 2A) as a kernel, or (2A,)."""
    pairs = np.zeros((len(values), 2, *values.shape[1:]), np.float32)
    pairs[:, 1] = values
    pairs = pairs.reshape(-1, *values.shape[1:])
    return transposed(pairs) if pairs.ndim > 1 else pairs


def deltas_by_row(values: np.ndarray, *, deviation: tuple[float, ...] | None = None) -> np.ndarray:
    """Rows of deltas (dx, dy, dw, dh), one of four for each box -> (dy, dx, dh, dw), in units of a
    deviation.
    """
    rows = values.reshape(-1, 4, *values.shape[1:])[:, [1, 0, 3, 2]]
    if deviation is not None:
        rows = rows / np.reshape(deviation, (4,) + (1,) * (rows.ndim - 2))
    rows = rows.reshape(values.shape).astype(np.float32)
    return transposed(rows) if rows.ndim > 1 else rows


def background_first(values: np.ndarray) -> np.ndarray:
    """The last row, the background's, before the others."""
    rows = np.roll(values, 1, axis=0)
    return transposed(rows) if rows.ndim > 1 else rows


def with_background(values: np.ndarray, *, rows: int, rule: Callable[..., np.ndarray]) -> np.ndarray:
    """Rows of zeros for the background in front, then the rule."""
    return rule(np.concatenate([np.zeros((rows, *values.shape[1:]), np.float32), values]))


# layers


def _convolution(
    ours: str, theirs: str, outputs: int, inputs: int, size: int, *, bias: bool = True, rule=transposed
) -> Plan:
    weight = Source(f"{theirs}.weight", (outputs, inputs, size, size))
    kernel = Target(f"{ours}/kernel:0", (size, size, inputs, outputs), (weight,), rule)
    if bias:
        source = Source(f"{theirs}.bias", (outputs,))
        return {ours: [kernel, Target(f"{ours}/bias:0", (outputs,), (source,), as_it_is)]}
    none = functools.partial(zeros, count=outputs)
    return {ours: [kernel, Target(f"{ours}/bias:0", (outputs,), (), none)]}


def _statistics(theirs: str, channels: int) -> tuple[Source, ...]:
    return tuple(Source(f"{theirs}.{kind}", (channels,)) for kind in STATISTICS)


def _normalisation(ours: str, theirs: str, channels: int) -> Plan:
    sources = _statistics(theirs, channels)
    return {
        ours: [
            Target(f"{ours}/{kind}:0", (channels,), (source,), as_it_is)
            for kind, source in zip(OURS, sources, strict=True)
        ]
    }


def _folded(ours: str, convolution: str, normalisation: str, outputs: int, inputs: int, size: int) -> Plan:
    weight = Source(f"{convolution}.weight", (outputs, inputs, size, size))
    sources, epsilon = _statistics(normalisation, outputs), 1e-5
    return {
        ours: [
            Target(
                f"{ours}/kernel:0",
                (size, size, inputs, outputs),
                (weight, *sources),
                functools.partial(folded_kernel, epsilon=epsilon),
            ),
            Target(f"{ours}/bias:0", (outputs,), sources, functools.partial(folded_bias, epsilon=epsilon)),
        ]
    }


def _dense(
    ours: str,
    theirs: str,
    shape,
    inputs: int,
    outputs: int,
    rule,
    bias_rule=as_it_is,
    held: int | None = None,
) -> Plan:
    """A dense layer. held: rows that the checkpoint has, if not as many as `outputs`."""
    held = outputs if held is None else held
    weight, bias = Source(f"{theirs}.weight", (held, inputs)), Source(f"{theirs}.bias", (held,))
    return {
        ours: [
            Target(f"{ours}/kernel:0", shape, (weight,), rule),
            Target(f"{ours}/bias:0", (outputs,), (bias,), bias_rule),
        ]
    }


def _backbone(
    network: Network, stem: tuple[str, str], name_block: Callable[[int, int], dict[str, tuple[str, str]]]
) -> Plan:
    """Stem, and blocks whose convolutions and normalisations `name_block` names by our branches."""
    layers = _convolution("conv1", stem[0], 64, network.bands, 7, bias=False)
    layers |= _normalisation("bn_conv1", stem[1], 64)
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[network.backbone], 2):
        width = 64 * 2 ** (stage - 2)
        for block in range(blocks):
            names = name_block(stage, block)
            ours = f"{stage}{ascii_lowercase[block]}_"
            sizes = {
                "branch2a": (width, inputs, 1),
                "branch2b": (width, width, 3),
                "branch2c": (4 * width, width, 1),
            }
            if block == 0:
                sizes["branch1"] = (4 * width, inputs, 1)
            for branch, (outputs, channels, size) in sizes.items():
                convolution, normalisation = names[branch]
                layers |= _convolution(f"res{ours}{branch}", convolution, outputs, channels, size, bias=False)
                layers |= _normalisation(f"bn{ours}{branch}", normalisation, outputs)
            inputs = 4 * width
    return layers


def _proposals(convolutions: list[str], logits: str, deltas: str) -> Plan:
    """The proposal head, which is one group in the model file."""
    layers: Plan = {}
    for ours, theirs in zip(("rpn_conv_shared", "rpn_conv_shared2"), convolutions, strict=False):
        layers |= _convolution(ours, theirs, CHANNELS, CHANNELS, 3)
    scaled = functools.partial(deltas_by_row, deviation=MaskRCNNConfig.box_deviation)
    for ours, theirs, values, held, rule in (
        ("rpn_class_raw", logits, 2 * ANCHORS, ANCHORS, with_background_logits),
        ("rpn_bbox_pred", deltas, 4 * ANCHORS, 4 * ANCHORS, scaled),
    ):
        weight, bias = Source(f"{theirs}.weight", (held, CHANNELS, 1, 1)), Source(f"{theirs}.bias", (held,))
        layers[ours] = [
            Target(f"{ours}/kernel:0", (1, 1, CHANNELS, values), (weight,), rule),
            Target(f"{ours}/bias:0", (values,), (bias,), rule),
        ]
    return {"rpn_model": [target for targets in layers.values() for target in targets]}


def _deconvolution(theirs: str) -> Plan:
    """Both programs have (in, out, y, x) here, and ours has (y, x, out, in)."""
    return _convolution("mrcnn_mask_deconv", theirs, CHANNELS, CHANNELS, 2)


def _torchvision(network: Network) -> Plan:
    v2, classes = network.version == "v2", network.class_count
    body, heads = "backbone.body", "roi_heads"

    def name_block(stage, block):
        name = f"{body}.layer{stage - 1}.{block}"
        branches = {f"branch2{part}": (f"{name}.conv{n}", f"{name}.bn{n}") for n, part in enumerate("abc", 1)}
        return branches | {"branch1": (f"{name}.downsample.0", f"{name}.downsample.1")}

    layers = _backbone(network, (f"{body}.conv1", f"{body}.bn1"), name_block)
    for level in (5, 4, 3, 2):
        for ours, part, inputs, size in (
            (f"fpn_c{level}p{level}", "inner", 64 * 2**level, 1),
            (f"fpn_p{level}", "layer", CHANNELS, 3),
        ):
            name = f"backbone.fpn.{part}_blocks.{level - 2}"
            if v2:
                layers |= _folded(ours, f"{name}.0", f"{name}.1", CHANNELS, inputs, size)
            else:
                layers |= _convolution(ours, f"{name}.0", CHANNELS, inputs, size)
    convolutions = [f"rpn.head.conv.{number}.0" for number in range(2 if v2 else 1)]
    layers |= _proposals(convolutions, "rpn.head.cls_logits", "rpn.head.bbox_pred")

    shape, inputs = (POOLED, POOLED, CHANNELS, 1024), CHANNELS * POOLED**2
    if v2:
        for number in range(4):
            name = f"{heads}.box_head.{number}"
            layers |= _convolution(
                f"mrcnn_box_conv{number + 1}", f"{name}.0", CHANNELS, CHANNELS, 3, bias=False
            )
            layers |= _normalisation(f"mrcnn_box_bn{number + 1}", f"{name}.1", CHANNELS)
        layers |= _dense("mrcnn_class_conv1", f"{heads}.box_head.5", shape, inputs, 1024, whole_kernel)
    else:
        layers |= _dense("mrcnn_class_conv1", f"{heads}.box_head.fc6", shape, inputs, 1024, whole_kernel)
        layers |= _dense(
            "mrcnn_class_conv2", f"{heads}.box_head.fc7", (1, 1, 1024, 1024), 1024, 1024, pointwise_kernel
        )
    name = f"{heads}.box_predictor"
    layers |= _dense("mrcnn_class_logits", f"{name}.cls_score", (1024, classes), 1024, classes, transposed)
    layers |= _dense(
        "mrcnn_bbox_fc",
        f"{name}.bbox_pred",
        (1024, 4 * classes),
        1024,
        4 * classes,
        deltas_by_row,
        deltas_by_row,
    )
    for number in range(4):
        name = f"{heads}.mask_head.{number}"
        layers |= _convolution(
            f"mrcnn_mask_conv{number + 1}", f"{name}.0", CHANNELS, CHANNELS, 3, bias=not v2
        )
        if v2:
            layers |= _normalisation(f"mrcnn_mask_bn{number + 1}", f"{name}.1", CHANNELS)
    layers |= _deconvolution(f"{heads}.mask_predictor.conv5_mask")
    layers |= _convolution("mrcnn_mask", f"{heads}.mask_predictor.mask_fcn_logits", classes, CHANNELS, 1)
    return layers


def _detectron2(network: Network) -> Plan:
    classes, objects = network.class_count, network.class_count - 1
    body, heads = "backbone.bottom_up", "roi_heads"

    def name_block(stage, block):
        name = f"{body}.res{stage}.{block}"
        parts = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "branch1": "shortcut"}
        return {branch: (f"{name}.{part}", f"{name}.{part}.norm") for branch, part in parts.items()}

    layers = _backbone(network, (f"{body}.stem.conv1", f"{body}.stem.conv1.norm"), name_block)
    for level in (5, 4, 3, 2):
        layers |= _convolution(
            f"fpn_c{level}p{level}", f"backbone.fpn_lateral{level}", CHANNELS, 64 * 2**level, 1
        )
        layers |= _convolution(f"fpn_p{level}", f"backbone.fpn_output{level}", CHANNELS, CHANNELS, 3)
    rpn = "proposal_generator.rpn_head"
    layers |= _proposals([f"{rpn}.conv"], f"{rpn}.objectness_logits", f"{rpn}.anchor_deltas")
    shape, inputs = (POOLED, POOLED, CHANNELS, 1024), CHANNELS * POOLED**2
    layers |= _dense("mrcnn_class_conv1", f"{heads}.box_head.fc1", shape, inputs, 1024, whole_kernel)
    layers |= _dense(
        "mrcnn_class_conv2", f"{heads}.box_head.fc2", (1, 1, 1024, 1024), 1024, 1024, pointwise_kernel
    )
    name = f"{heads}.box_predictor"
    layers |= _dense(
        "mrcnn_class_logits",
        f"{name}.cls_score",
        (1024, classes),
        1024,
        classes,
        background_first,
        background_first,
    )
    boxes = functools.partial(with_background, rows=4, rule=deltas_by_row)
    layers |= _dense(
        "mrcnn_bbox_fc",
        f"{name}.bbox_pred",
        (1024, 4 * classes),
        1024,
        4 * classes,
        boxes,
        boxes,
        held=4 * objects,
    )
    for number in range(1, 5):
        layers |= _convolution(
            f"mrcnn_mask_conv{number}", f"{heads}.mask_head.mask_fcn{number}", CHANNELS, CHANNELS, 3
        )
    layers |= _deconvolution(f"{heads}.mask_head.deconv")
    name = f"{heads}.mask_head.predictor"
    weight, bias = Source(f"{name}.weight", (objects, CHANNELS, 1, 1)), Source(f"{name}.bias", (objects,))
    layers["mrcnn_mask"] = [
        Target(
            "mrcnn_mask/kernel:0",
            (1, 1, CHANNELS, classes),
            (weight,),
            functools.partial(with_background, rows=1, rule=transposed),
        ),
        Target(
            "mrcnn_mask/bias:0",
            (classes,),
            (bias,),
            functools.partial(with_background, rows=1, rule=as_it_is),
        ),
    ]
    return layers
