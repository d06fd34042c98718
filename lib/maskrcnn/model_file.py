"""Model files that hold a Mask R-CNN: the legacy layout, in which files without a description are known,
too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ann import weights
from ann.backbones.names import BACKBONES, RESNET_BLOCKS, STEMS
from ann.config import for_bands
from ann.errors import ModelFileError
from ann.weights import ModelFile
from ann.weights.kind import ModelKind, Recognised
from maskrcnn.config import MaskRCNNConfig

LITE_LAYERS = ("stem_conv", "block7a_project_conv")  # the first and the last of EfficientNet-Lite0
CLASS_LAYER = "mrcnn_class_logits"
HEADS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

RESIDUAL_BLOCK = re.compile(r"^res4([a-z])_branch2a$")
STAGE_4_BLOCKS = {blocks[2]: name for name, blocks in RESNET_BLOCKS.items()}


def read_model(path: str | Path) -> ModelFile:
    """What a model file holds, see `ann.weights.read_model`."""
    return weights.read_model(path, KIND)


def recognise_backbone(layers: Sequence[str]) -> str | None:
    """The backbone whose layers these are, by the blocks of its fourth stage; None if it is no known one."""
    if all(name in layers for name in LITE_LAYERS):
        return "efficientnet_lite0"
    blocks = {match[1] for match in map(RESIDUAL_BLOCK.match, layers) if match}
    name = STAGE_4_BLOCKS.get(len(blocks))
    bottleneck = "res4a_branch2c" in layers
    return name if "conv1" in layers and name and bottleneck == (name != "resnet18") else None


def recognise(path: Path, layers: Mapping[str, tuple]) -> Recognised:
    """Backbone, number of bands and number of classes, from the layers alone.

    Raises:
        ModelFileError: no Mask R-CNN in the legacy layout.
    """
    backbone = recognise_backbone([name for name, arrays in layers.items() if arrays])
    if backbone is None:
        held = ", ".join([name for name, arrays in layers.items() if arrays][:5]) or "none"
        raise ModelFileError(
            f"Model file {path} is no Mask R-CNN with the backbone {' or '.join(BACKBONES)} "
            f"in the legacy layout; the layers with weights in it: {ascii(held)[:200]}. Use another model"
        )
    name = next(name for name in STEMS if name in layers)
    stem = layers[name][0].shape
    if len(stem) != 4 or not 0 < stem[2] <= 1000:
        raise ModelFileError(
            f"Model file {path}: layer {name} has a kernel of shape {stem}, expected "
            "(height, width, bands, filters). "
            "Use another model"
        )
    logits = layers.get(CLASS_LAYER)
    if not logits:
        return Recognised(backbone=backbone, bands=stem[2])
    if len(logits[0].shape) != 2 or not 2 <= logits[0].shape[1] <= 10_001:
        raise ModelFileError(
            f"Model file {path}: layer {CLASS_LAYER} has a kernel of shape {logits[0].shape}, "
            "expected (1024, classes with the background). Use another model"
        )
    return Recognised(backbone=backbone, bands=stem[2], class_count=logits[0].shape[1])


def recognised_config(found: Recognised) -> MaskRCNNConfig:
    """Description of a legacy file: what its layers say, and the legacy values for the rest.

    The classes have no names in such a file: they are called class_1, class_2, ... . Bands beyond the
    three of the legacy mean get the mean of these.

    Raises:
        ModelFileError: the file holds a backbone only, no whole model.
    """
    if found.class_count is None:
        raise ModelFileError(
            f"holds a {found.backbone} backbone without a class layer ({CLASS_LAYER}). "
            "It can start a training, but nothing can be detected with it"
        )
    return MaskRCNNConfig(
        classes=tuple(f"class_{number}" for number in range(1, found.class_count)),
        backbone=found.backbone,
        band_mean=for_bands(MaskRCNNConfig.band_mean, found.bands),
        band_scale=(1.0,) * found.bands,
    )


KIND = ModelKind(
    config=MaskRCNNConfig,
    stems=STEMS,
    heads=HEADS,
    recognise=recognise,
    undescribed=recognised_config,
    backbone_of=recognise_backbone,
    lengths={"anchor_scales": 5, "box_deviation": 4, "tile_shape": 2},
)
