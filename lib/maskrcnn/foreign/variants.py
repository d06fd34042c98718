"""What the programs do between the layers, as values of `Variant`.

torchvision 0.29, `maskrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn_v2` (BSD 3-clause); detectron2 of 2026,
`mask_rcnn_R_50_FPN` and `mask_rcnn_R_101_FPN` (Apache 2.0). Only the behaviour is theirs.
"""

from __future__ import annotations

import dataclasses
import math

from maskrcnn.config import Variant

LARGEST_LOG_SCALE = math.log(1000 / 16)
MORE_THAN_NOTHING = 1e-30  # pixels: a side of any length

TORCHVISION_V1 = Variant(
    stride_in_3x3=True,
    symmetric_padding=True,
    epsilon=1e-5,
    proposal_width=1,
    box_normalised=False,
    mask_normalised=False,
    pixels=True,
    anchors_rounded=True,
    strides_fitted=True,
    largest_log_scale=LARGEST_LOG_SCALE,
    proposals_by_level=True,
    smallest_proposal=1e-3,
    level_rounding="down",
    level_shift=1e-6,
    pooling="bins",
    pooling_samples=2,
    every_class=True,
    lowest_score=0.05,
    smallest_detection=1e-2,
    pasting="grown",
    shorter_side=800,
    longer_side=1333,
    sides_rounding="down",
)
TORCHVISION_V2 = dataclasses.replace(
    TORCHVISION_V1, proposal_convolutions=2, box_convolutions=4, box_layers=1, mask_normalised=True
)
DETECTRON2 = dataclasses.replace(
    TORCHVISION_V1,
    stride_in_3x3=False,
    anchors_rounded=False,
    strides_fitted=False,
    proposals_by_logit=True,
    smallest_proposal=MORE_THAN_NOTHING,
    level_shift=0.0,
    pooling_samples=0,
    pooling_shift=0.5,
    smallest_detection=0.0,
    pasting="exact",
    sides_rounding="nearest",
    bytes_resized=True,
)

# values of the config that go with them
CONFIG = {
    "anchor_ratios": (2.0, 1.0, 0.5),  # width : height, wide ones first
    "proposal_candidates": 1000,  # of each level
    "proposal_nms_threshold": 0.7,
    "proposals_detection": 1000,
    "detection_nms_threshold": 0.5,
    "max_detections": 100,
}
