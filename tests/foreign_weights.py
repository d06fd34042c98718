"""Seeded weights in the layouts of torchvision and detectron2, and files of them, without either program.

Numbers are made of 64-bit integers (splitmix64, a stream for each tensor, keyed by SHA-256 of seed and name),
so they are the same everywhere. The reference arrays in `reference/foreign` were computed with them.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct

import numpy as np

LEVELS = 4096  # integers lie in [-LEVELS, LEVELS)
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
RELU = 1.42  # gain after a ReLU that keeps the size of the features


def integers(seed: int, name: str, count: int) -> np.ndarray:
    """Uniform int64 in [-LEVELS, LEVELS)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(51)).astype(np.int64) - LEVELS


class Tensors(dict):
    """{name: array}, filled layer by layer."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def kernel(self, name, shape, gain, inputs=(1, 2, 3)):
        """Weights that sum up to next to 0 over the inputs, else all places of a random network look
        alike.
        """
        whole = integers(self.seed, name, math.prod(shape)).reshape(shape)
        inputs = tuple(axis for axis in inputs if axis < len(shape))
        count = math.prod(shape[axis] for axis in inputs)
        whole = whole - whole.sum(axis=inputs, keepdims=True) // count
        self[name] = whole.astype(np.float32) * np.float32(gain * math.sqrt(3.0 / count) / LEVELS)

    def spread(self, name, count, centre, half):
        self[name] = (centre + half * (integers(self.seed, name, count) / LEVELS)).astype(np.float32)

    def layer(self, name, outputs, inputs, size=0, gain=1.0, bias=None):
        """A convolution, or a dense layer with size 0; bias: (centre, half width)."""
        shape = (outputs, inputs, size, size) if size else (outputs, inputs)
        self.kernel(f"{name}.weight", shape, gain)
        if bias:
            self.spread(f"{name}.bias", outputs, *bias)

    def normalisation(self, name, channels, gain=1.0, counted=True):
        """Variances from 1 down to 1/512, so that a wrong epsilon shows."""
        draw = lambda kind: integers(self.seed, f"{name}.{kind}", channels)  # noqa: E731
        exponent = (draw("exponent") + LEVELS) * 10 // (2 * LEVELS)
        variance = 2.0 ** -exponent.astype(np.float64) * (1.25 + 0.25 * draw("running_var") / LEVELS)
        factor = gain * (1.0 + 0.25 * draw("weight") / LEVELS)
        self[f"{name}.weight"] = (factor * np.sqrt(variance)).astype(np.float32)
        self.spread(f"{name}.bias", channels, 0.0, 0.2 * gain)
        mean = 0.2 * draw("running_mean") / LEVELS * np.sqrt(variance)
        self[f"{name}.running_mean"] = mean.astype(np.float32)
        self[f"{name}.running_var"] = variance.astype(np.float32)
        if counted:
            self[f"{name}.num_batches_tracked"] = np.int64(1000)


BIAS = (0.0, 0.1)


def torchvision_weights(version="v1", seed=1, classes=3, bands=3, depth=50) -> dict[str, np.ndarray]:
    """A state_dict of `maskrcnn_resnet50_fpn` (v1) or its v2; classes: with the background."""
    v2 = version == "v2"
    gains = (
        {"classes": 5.0, "ground": 7.8, "boxes": 2.5} if v2 else {"classes": 2.2, "ground": 4.5, "boxes": 1.5}
    )
    made, body, heads = Tensors(seed), "backbone.body", "roi_heads"
    made.layer(f"{body}.conv1", 64, bands, 7, 1.4)
    made.normalisation(f"{body}.bn1", 64)
    inputs = 64
    for index, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**index
        for block in range(blocks):
            name = f"{body}.layer{index + 1}.{block}"
            sizes = ((width, inputs, 1, 1.0), (width, width, 3, 1.0), (4 * width, width, 1, 0.5))
            for number, (outputs, channels, size, gain) in enumerate(sizes, 1):
                made.layer(f"{name}.conv{number}", outputs, channels, size, RELU)
                made.normalisation(f"{name}.bn{number}", outputs, gain)
            if block == 0:
                made.layer(f"{name}.downsample.0", 4 * width, inputs, 1, RELU)
                made.normalisation(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    for part, size, gain in (("inner_blocks", 1, 1.5), ("layer_blocks", 3, 0.7)):
        for level in range(4):
            name = f"backbone.fpn.{part}.{level}"
            channels = 256 * 2**level if size == 1 else 256
            made.layer(f"{name}.0", 256, channels, size, gain, None if v2 else BIAS)
            if v2:
                made.normalisation(f"{name}.1", 256)
    for number in range(2 if v2 else 1):
        made.layer(f"rpn.head.conv.{number}.0", 256, 256, 3, RELU, BIAS)
    made.layer("rpn.head.cls_logits", 3, 256, 1, 1.6, (-1.0, 0.3))
    made.layer("rpn.head.bbox_pred", 12, 256, 1, 0.25, BIAS)
    if v2:
        for number in range(4):
            made.layer(f"{heads}.box_head.{number}.0", 256, 256, 3, RELU)
            made.normalisation(f"{heads}.box_head.{number}.1", 256)
        made.layer(f"{heads}.box_head.5", 1024, 256 * 49, 0, RELU, BIAS)
    else:
        made.layer(f"{heads}.box_head.fc6", 1024, 256 * 49, 0, 1.0, BIAS)
        made.layer(f"{heads}.box_head.fc7", 1024, 1024, 0, RELU, BIAS)
    made.layer(f"{heads}.box_predictor.cls_score", classes, 1024, 0, gains["classes"], BIAS)
    made[f"{heads}.box_predictor.cls_score.bias"][0] += np.float32(gains["ground"])
    made.layer(f"{heads}.box_predictor.bbox_pred", 4 * classes, 1024, 0, gains["boxes"], BIAS)
    for number in range(4):
        made.layer(f"{heads}.mask_head.{number}.0", 256, 256, 3, RELU, None if v2 else BIAS)
        if v2:
            made.normalisation(f"{heads}.mask_head.{number}.1", 256)
    made.kernel(f"{heads}.mask_predictor.conv5_mask.weight", (256, 256, 2, 2), RELU, (0,))
    made.spread(f"{heads}.mask_predictor.conv5_mask.bias", 256, *BIAS)
    made.layer(f"{heads}.mask_predictor.mask_fcn_logits", classes, 256, 1, 2.0, BIAS)
    return dict(made)


def detectron2_weights(depth=50, seed=1, objects=2, bands=3) -> dict[str, np.ndarray]:
    """A state_dict of `mask_rcnn_R_50_FPN` or `R_101_FPN`; objects: classes without the background."""
    made, body, heads = Tensors(seed), "backbone.bottom_up", "roi_heads"

    def normalised(name, outputs, inputs, size, gain, norm_gain=1.0):
        made.layer(name, outputs, inputs, size, gain)
        made.normalisation(f"{name}.norm", outputs, norm_gain, counted=False)

    for level in (2, 3, 4, 5):
        made.layer(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1.5, BIAS)
        made.layer(f"backbone.fpn_output{level}", 256, 256, 3, 0.7, BIAS)
    normalised(f"{body}.stem.conv1", 64, bands, 7, 1.4 / 58)  # pixels are not divided by their deviation
    inputs = 64
    for index, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**index
        for block in range(blocks):
            name = f"{body}.res{index + 2}.{block}"
            if block == 0:
                normalised(f"{name}.shortcut", 4 * width, inputs, 1, RELU)
            normalised(f"{name}.conv1", width, inputs, 1, RELU)
            normalised(f"{name}.conv2", width, width, 3, RELU)
            normalised(f"{name}.conv3", 4 * width, width, 1, RELU, 0.5 if blocks < 10 else 0.3)
            inputs = 4 * width
    rpn = "proposal_generator.rpn_head"
    made.layer(f"{rpn}.conv", 256, 256, 3, RELU, BIAS)
    made.layer(f"{rpn}.objectness_logits", 3, 256, 1, 1.6, (-1.0, 0.3))
    made.layer(f"{rpn}.anchor_deltas", 12, 256, 1, 0.25, BIAS)
    made.layer(f"{heads}.box_head.fc1", 1024, 256 * 49, 0, 1.0, BIAS)
    made.layer(f"{heads}.box_head.fc2", 1024, 1024, 0, RELU, BIAS)
    made.layer(f"{heads}.box_predictor.cls_score", objects + 1, 1024, 0, 2.2, BIAS)
    made[f"{heads}.box_predictor.cls_score.bias"][-1] += np.float32(4.5)
    made.layer(f"{heads}.box_predictor.bbox_pred", 4 * objects, 1024, 0, 1.5, BIAS)
    for number in (1, 2, 3, 4):
        made.layer(f"{heads}.mask_head.mask_fcn{number}", 256, 256, 3, RELU, BIAS)
    made.kernel(f"{heads}.mask_head.deconv.weight", (256, 256, 2, 2), RELU, (0,))
    made.spread(f"{heads}.mask_head.deconv.bias", 256, *BIAS)
    made.layer(f"{heads}.mask_head.predictor", objects, 256, 1, 2.0, BIAS)
    return dict(made)


SAFETENSORS = {"float32": "F32", "float16": "F16", "int64": "I64", "float64": "F64", "uint16": "BF16"}


def write_safetensors(path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file; uint16 stands for bfloat16."""
    header, position = {}, 0
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    for name, array in arrays.items():
        shape = list(np.shape(tensors[name]))
        offsets = [position, position + array.nbytes]
        header[name] = {"dtype": SAFETENSORS[array.dtype.name], "shape": shape, "data_offsets": offsets}
        position += array.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.tobytes())


def old_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's v1 under the names of its versions before 0.13, with frozen normalisations."""
    pairs = [("rpn.head.conv.0.0.", "rpn.head.conv.")]
    pairs += [(f"roi_heads.mask_head.{n}.0.", f"roi_heads.mask_head.mask_fcn{n + 1}.") for n in range(4)]
    pairs += [
        (f"backbone.fpn.{part}_blocks.{n}.0.", f"backbone.fpn.{part}_blocks.{n}.")
        for part in ("inner", "layer")
        for n in range(4)
    ]
    renamed = {}
    for name, array in tensors.items():
        for new, old in pairs:
            name = name.replace(new, old, 1)
        if not name.endswith("num_batches_tracked"):
            renamed[name] = array
    return renamed
