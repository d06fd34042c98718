"""torchvision's Mask R-CNN with the anchors and numbers of regions of one of ours, to compare with."""

from __future__ import annotations


def build_torchvision(config, *, lowest_score: float, detections: int):
    """`maskrcnn_resnet50_fpn` of random weights (seed 0) for images of the config's size, already scaled."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    ratios = tuple(1 / ratio for ratio in config.anchor_ratios)  # height : width there
    side = config.image_shape[0]
    return maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=config.class_count,
        min_size=side,
        max_size=side,
        image_mean=[0.0] * config.bands,
        image_std=[1.0] * config.bands,
        rpn_anchor_generator=AnchorGenerator(
            tuple((scale,) for scale in config.anchor_scales), (ratios,) * len(config.anchor_scales)
        ),
        box_batch_size_per_image=config.rois_per_image,
        box_positive_fraction=config.positive_roi_share,
        box_score_thresh=lowest_score,
        box_detections_per_img=detections,
    )
