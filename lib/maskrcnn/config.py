"""What a Mask R-CNN is beside what every model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ann.config import ModelConfig

SIZE_MULTIPLE = 64  # the coarsest pyramid level has a stride of 64 pixels


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(ModelConfig):
    """Description of a Mask R-CNN.

    The defaults are those of the legacy models, so a file without a description is rebuilt from its layers
    and these values. Boxes are (y1, x1, y2, x2) everywhere.
    """

    network: ClassVar[str] = "maskrcnn"
    backbones: ClassVar[tuple[str, ...]] = ("resnet18", "resnet50", "resnet101")

    backbone: str = "resnet101"
    image_shape: tuple[int, int] = (1024, 1024)

    anchor_scales: tuple[int, ...] = (32, 64, 128, 256, 512)  # pixels, one per pyramid level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # width : height
    box_deviation: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)  # scale of predicted box deltas
    proposal_candidates: int = 6000  # best anchors that enter non-maximum suppression
    proposal_nms_threshold: float = 0.7
    proposals_training: int = 2000
    proposals_detection: int = 1000
    detection_nms_threshold: float = 0.3
    max_detections: int = 400  # per tile

    anchors_per_image: int = 256  # sampled for the proposal losses
    rois_per_image: int = 64  # sampled for the head losses
    positive_roi_share: float = 0.33
    max_instances: int = 100  # labelled instances per training image
    mini_mask_shape: tuple[int, int] | None = None  # None: masks keep the size of the image
    weight_decay: float = 1e-4

    @property
    def size_multiple(self) -> int:
        return SIZE_MULTIPLE

    @property
    def roi_candidates(self) -> int:
        """Regions of a training image that the sample is drawn from: proposals and labelled boxes."""
        return self.proposals_training + self.max_instances
