"""The network in training: targets, the five losses and the weights' penalty."""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from ann.training.model import TrainingModel
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network import anchors, losses
from maskrcnn.network.model import MaskRCNN
from maskrcnn.network.picking import best_indices, gather_rows
from maskrcnn.network.region_proposal import propose_at
from maskrcnn.network.roi_pooling import flatten_pyramid
from maskrcnn.network.targets import anchor_targets, object_places, roi_targets

LOSSES = (
    "rpn_class_loss",
    "rpn_box_loss",
    "mrcnn_class_loss",
    "mrcnn_box_loss",
    "mrcnn_mask_loss",
    "weight_loss",
)


def anchor_count(config: MaskRCNNConfig) -> int:
    """Anchors of an image, the length of a row of `anchor_noise`."""
    return anchors.anchor_count(config.image_shape, config.anchor_ratios)


class Targets(NamedTuple):
    """What the network's outputs are compared with; sampled, no gradient."""

    match: object  # (B, A) int32: 1 object, -1 background, 0 not compared
    anchor_deltas: object  # (B, A, 4) float32
    rois: object  # (B, n, 4) float32, in the unit of the model's steps; regions with an object first
    class_ids: object  # (B, n) int32, 0 background
    roi_deltas: object  # (B, n, 4) float32
    masks: object  # (B, n, 28, 28) float32, 0 or 1


class TrainingNetwork(TrainingModel):
    """Trains `network` on batches of labelled images.

    A batch is a dict of arrays, N = config.max_instances:
        images: (B, H, W, bands) float32, scaled
        class_ids: (B, N or more) int32, 0 where there is no instance, negative for regions to ignore, as all
            rows beyond N are
        boxes: (B, N or more, 4) float32, pixels, a row for each class id
        masks: (B, N, H, W) uint8, 0 or 1, or (B, N, H, W / 8), the same in bits; with config.mini_mask_shape
            (B, N, *config.mini_mask_shape), cropped to the box, 0 or 1
        anchor_noise: (B, anchor_count(config)) float32 in [0, 1), decides which anchors are sampled
        roi_noise: (B, config.roi_candidates) float32 in [0, 1), decides which regions are sampled

    The output is {loss: (sum, count)} with the names of `LOSSES`.
    """

    def __init__(self, network: MaskRCNN):
        super().__init__(network, LOSSES)
        config = network.config
        self._anchors = self.constant("anchors", network.anchors())
        self._normalised_anchors = self.constant(
            "normalised_anchors", network.unit_anchors(config.image_shape)
        )
        self._around = self.constant("around", anchors.surrounding_cells(config.image_shape))

    def call(self, batch, training=False):
        """Losses of a batch, {name: (sum, count)}, scalars float32."""
        config = self.network.config
        if tuple(batch["images"].shape[1:3]) != config.image_shape:
            raise ValueError(
                f"Expected images of the model's size {config.image_shape}, "
                f"received a batch of shape {tuple(batch['images'].shape)}"
            )
        normalise_by_batch = training and self.network.train_batch_norm
        pyramid, rpn_logits, rpn_deltas = self.network(batch["images"], training=normalise_by_batch)
        targets = self.targets(batch, rpn_logits, rpn_deltas)
        cells = flatten_pyramid(pyramid)
        compared = best_indices(
            ops.cast(targets.match != 0, "float32"), min(config.anchors_per_image, self._anchors.shape[0])
        )
        match, anchor_deltas = (
            gather_rows(values, compared) for values in (targets.match, targets.anchor_deltas)
        )
        if config.variant.proposal_convolutions == 1:
            rpn_logits, rpn_deltas = propose_at(self.network.rpn, cells, self._around, compared)
        else:
            rpn_logits, rpn_deltas = (gather_rows(values, compared) for values in (rpn_logits, rpn_deltas))
        logits, deltas = self.network.classify(
            cells, targets.rois, config.image_shape, training=normalise_by_batch
        )
        # only regions with an object have a mask, and they come first
        positive = max(object_places(config.rois_per_image, config.positive_roi_share), 1)
        masks = self.network.segment(
            cells, targets.rois[:, :positive], config.image_shape, training=normalise_by_batch
        )
        trained = [variable for variable in self.network.trainable_variables if not _is_scale(variable)]
        return {
            "rpn_class_loss": losses.rpn_class_loss(match, rpn_logits),
            "rpn_box_loss": losses.rpn_box_loss(match, anchor_deltas, rpn_deltas),
            "mrcnn_class_loss": losses.class_loss(targets.class_ids, logits),
            "mrcnn_box_loss": losses.box_loss(targets.class_ids, targets.roi_deltas, deltas),
            "mrcnn_mask_loss": losses.mask_loss(
                targets.class_ids[:, :positive], targets.masks[:, :positive], masks
            ),
            "weight_loss": (losses.weight_loss(trained, config.weight_decay), ops.ones(())),
        }

    def targets(self, batch, rpn_logits, rpn_deltas) -> Targets:
        """Sampled anchors and regions with what they should have predicted."""
        config = self.network.config
        match, anchor_deltas = anchor_targets(
            self._anchors,
            batch["class_ids"],
            batch["boxes"],
            batch["anchor_noise"],
            anchors_per_image=config.anchors_per_image,
            box_deviation=config.box_deviation,
        )
        steps = self.network.steps
        whole = ops.convert_to_tensor([[0, 0, *config.image_shape]], dtype="float32")
        proposals = steps.propose(
            ops.stop_gradient(rpn_logits),
            ops.stop_gradient(rpn_deltas),
            self._normalised_anchors,
            steps.to_unit(whole, config.image_shape),
            config.image_shape,
            config.proposals_training,
        )
        # with the objects' own boxes the heads learn from the first step on, when proposals are guesses
        places = batch["masks"].shape[1]
        is_object = (batch["class_ids"][:, :places] > 0)[..., None]
        boxes = steps.to_unit(batch["boxes"][:, :places], config.image_shape)
        true_boxes = ops.where(is_object, boxes, 0.0)
        sampled = roi_targets(
            ops.concatenate([proposals, true_boxes], axis=1),
            batch["class_ids"],
            batch["boxes"],
            batch["masks"],
            batch["roi_noise"],
            image_shape=config.image_shape,
            count=config.rois_per_image,
            positive_share=config.positive_roi_share,
            box_deviation=config.box_deviation,
            mini_masks=config.mini_mask_shape is not None,
            pixels=config.variant.pixels,
        )
        values = (match, anchor_deltas, sampled.rois, sampled.class_ids, sampled.deltas, sampled.masks)
        return Targets(*(ops.stop_gradient(value) for value in values))


def _is_scale(variable) -> bool:
    """Whether the weights' penalty leaves the variable out: gamma and beta of a normalisation."""
    return variable.name in ("gamma", "beta")
