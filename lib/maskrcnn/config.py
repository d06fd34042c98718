"""What a Mask R-CNN is beside what every model is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

from ann.backbones.names import BACKBONES, ResNetDetails
from ann.config import ModelConfig

LONGEST_SIDE = 8192  # pixels that images are resized to at most
TILE_STEP = 256  # pixels, in which tiles follow the size of a scene
SIZE_MULTIPLE = 64  # the coarsest pyramid level has a stride of 64 pixels
PYRAMID_CHANNELS, MAX_PYRAMID_CHANNELS = 256, 1024  # the first as in the legacy files
# most of a small network's time goes into pyramid and heads, whose cost grows with the square of the channels
LIGHT_PYRAMID_CHANNELS = {"resnet18": 128, "efficientnet_lite0": 128}

# How models detect that are trained from now on. Boxes of neighbours that lie at 45 degrees share a lot: at a
# threshold of 0.3 a house is lost from 1 : 2.1 on, at 0.5 from 1 : 4.5 on (measured on four models: recall
# +0.8 to +2.1 points, mask AP -0.6 to +0.4).
TRAINED_DETECTION = {"background_competes": False, "detection_nms_threshold": 0.5}
# What a description that lacks a field means. Only models of this project have one, and none of them is bound
# to the legacy numbers. From a confidence of 0.5 on, the choice of class makes no difference.
DESCRIBED_BEFORE = {"background_competes": False}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What tells one Mask R-CNN from another of the same parts. The defaults are the legacy models'.

    Every number a model gives depends on these values, and a file of weights alone does not tell them.
    `foreign/variants.py` has those of other programs.

    Raises:
        ValueError: a value that no variant has.
    """

    # layers
    stride_in_3x3: bool = False  # of a bottleneck block; else in its first 1x1
    symmetric_padding: bool = False  # strided windows are padded on both sides; else after the end only
    epsilon: float = 1e-3  # of the batch normalisations
    proposal_convolutions: int = 1  # of the proposal head, before its outputs
    proposal_width: int = 2  # their channels, in those of the pyramid
    box_convolutions: int = 0  # of the box head, before its dense layers
    box_layers: int = 2  # dense layers of the box head
    box_normalised: bool = True  # batch normalisation after these
    mask_normalised: bool = True  # batch normalisation in the mask head

    # boxes
    pixels: bool = False  # boxes are computed in pixels; else as shares, see `boxes.normalise_boxes`
    anchors_rounded: bool = False  # to whole pixels, halves to the even one
    strides_fitted: bool = False  # strides of the anchors follow from the sizes of the maps
    largest_log_scale: float = 10.0  # of predicted deltas
    proposals_by_level: bool = False  # candidates and suppression are those of each level of the pyramid
    proposals_by_logit: bool = False  # their order is that of the logits; else of the probabilities
    smallest_proposal: float = 0.0  # pixels, the shorter side

    # regions
    level_rounding: str = "nearest"  # or down: which level of the pyramid a region is pooled from
    level_shift: float = 0.0  # is added to the level before it is rounded
    pooling: str = "points"  # one point a bin, from edge to edge; or bins: the mean over each bin
    pooling_samples: int = 1  # of a bin along each axis; 0: as many as it has cells
    pooling_shift: float = 0.0  # cells by which regions are moved to the top left

    # detections
    every_class: bool = False  # of a region may become a detection; else the most likely one alone
    lowest_score: float = 0.0  # detections must have more
    smallest_detection: float = 0.0  # pixels, the shorter side
    pasting: str = (
        "rounded"  # how masks get their places: rounded, grown or exact, see `instances/pasting.py`
    )

    # what is done with an image before the network sees it
    shorter_side: int = 0  # it is resized so that its shorter side has so many pixels; 0: it is not resized
    longer_side: int = 0  # but the longer one no more than these
    sides_rounding: str = "down"  # or nearest: the new sides, to whole pixels
    bytes_resized: bool = False  # as bytes with anti-aliasing; else as numbers without

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif (
                type(value) is not kind or value != value or (kind in (int, float) and not 0 <= value <= 1e6)
            ):
                raise ValueError(f"Expected another value of {field.name}, received {value!r}")
        if self.shorter_side and not 16 <= self.shorter_side <= self.longer_side <= LONGEST_SIDE:
            raise ValueError(
                f"Expected images to be resized to 16 to {LONGEST_SIDE} pixels, the longer side not below "
                f"the shorter one, received {self.shorter_side} and {self.longer_side}"
            )
        if not self.pixels and (
            self.pooling == "bins" or self.proposals_by_level or self.pasting != "rounded"
        ):
            raise ValueError(
                "Expected boxes in pixels with pooling by bins, proposals by level or exact boxes"
            )
        for name, allowed in VARIANT_CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Expected {name} to be one of {', '.join(map(str, allowed))}, received "
                    f"{getattr(self, name)!r}"
                )

    @property
    def backbone(self) -> ResNetDetails:
        """Those of its values that the backbone is built by."""
        return ResNetDetails(
            stride_in_3x3=self.stride_in_3x3,
            symmetric_padding=self.symmetric_padding,
            epsilon=self.epsilon,
        )

    @property
    def resizes(self) -> bool:
        """Whether images are resized before the network sees them."""
        return self.shorter_side > 0

    def without_resizing(self) -> Variant:
        """The variant for a network that sees images in the size that they have."""
        return dataclasses.replace(self, shorter_side=0, longer_side=0)


VARIANT_CHOICES = {
    "proposal_convolutions": (1, 2),
    "proposal_width": (1, 2),
    "box_convolutions": (0, 4),
    "box_layers": (1, 2),
    "level_rounding": ("nearest", "down"),
    "pooling": ("points", "bins"),
    "pooling_samples": (0, 1, 2, 3, 4),
    "pasting": ("rounded", "grown", "exact"),
    "sides_rounding": ("down", "nearest"),
}
LEGACY = Variant()
# as wide as in the legacy models, the proposal head would take most of a light network's time
LIGHT = Variant(proposal_width=1)


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(ModelConfig):
    """Description of a Mask R-CNN.

    The defaults are those of the legacy models, so a file without a description is rebuilt from its layers
    and these values. Models that are trained from now on differ in `TRAINED_DETECTION`. Boxes are
    (y1, x1, y2, x2) everywhere.
    """

    network: ClassVar[str] = "maskrcnn"
    backbones: ClassVar[tuple[str, ...]] = BACKBONES

    backbone: str = "resnet101"
    image_shape: tuple[int, int] = (1024, 1024)

    pyramid_channels: int | None = None  # of each level; None: those usual for the backbone
    anchor_scales: tuple[int, ...] = (32, 64, 128, 256, 512)  # pixels, one per pyramid level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # width : height
    box_deviation: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)  # scale of predicted box deltas
    proposal_candidates: int = 6000  # best anchors that enter non-maximum suppression (by level: of each)
    proposal_nms_threshold: float = 0.7
    proposals_training: int = 2000
    proposals_detection: int = 1000
    detection_nms_threshold: float = 0.3
    background_competes: bool = True  # legacy: what is most likely background is no object, at any score
    max_detections: int = 400  # per tile
    tile_shape: tuple[int, int] | None = None  # (height, width) of tiles in detection; None: image_shape

    anchors_per_image: int = 256  # sampled for the proposal losses
    rois_per_image: int = 64  # sampled for the head losses
    positive_roi_share: float = 0.33
    max_instances: int = 100  # labelled instances per training image
    mini_mask_shape: tuple[int, int] | None = None  # None: masks keep the size of the image
    weight_decay: float = 1e-4

    variant: Variant | None = None  # None: that of the backbone in this project

    def __post_init__(self):
        super().__post_init__()
        if self.pyramid_channels is None:
            channels = LIGHT_PYRAMID_CHANNELS.get(self.backbone, PYRAMID_CHANNELS)
            object.__setattr__(self, "pyramid_channels", channels)
        if self.variant is None:
            light = self.backbone == "efficientnet_lite0"
            object.__setattr__(self, "variant", LIGHT if light else LEGACY)
        if not 0 < self.pyramid_channels <= MAX_PYRAMID_CHANNELS:
            raise ValueError(
                f"Expected 1 to {MAX_PYRAMID_CHANNELS} channels of the pyramid, "
                f"received {self.pyramid_channels}"
            )
        if self.tile_shape and any(side <= 0 or side % SIZE_MULTIPLE for side in self.tile_shape):
            raise ValueError(
                f"Expected tiles with sides that are multiples of {SIZE_MULTIPLE}, received {self.tile_shape}"
            )
        if isinstance(self.variant, dict):
            object.__setattr__(self, "variant", Variant(**self.variant))
        if not isinstance(self.variant, Variant):
            raise ValueError(f"Expected a Variant, received {self.variant!r}")

    @property
    def size_multiple(self) -> int:
        return SIZE_MULTIPLE

    def tile_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the tiles that suit a scene of that size, pixels: no larger than need be.

        Scenes of similar sizes have the same, since a network is compiled for each.
        """
        if self.tile_shape is None:
            return self.image_shape
        needed = -(-max(height, width) // TILE_STEP) * TILE_STEP
        return tuple(
            max(seen, min(side, needed)) for seen, side in zip(self.image_shape, self.tile_shape, strict=True)
        )

    @property
    def roi_candidates(self) -> int:
        """Regions of a training image that the sample is drawn from: proposals and labelled boxes."""
        return self.proposals_training + self.max_instances

    @classmethod
    def from_json(cls, text: str) -> MaskRCNNConfig:
        """Rebuild a description, as of all models; what one of before lacks is as DESCRIBED_BEFORE.

        Raises:
            ValueError: `text` is no JSON object, or lacks or garbles a field.
        """
        values = json.loads(text)
        return super().from_json(json.dumps(DESCRIBED_BEFORE | values))
