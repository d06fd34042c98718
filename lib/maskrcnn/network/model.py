"""The Mask R-CNN: backbone, feature pyramid, region proposal and the two heads, put together.

Shorthand of this package: B images in a batch, A anchors of an image, n regions of interest (rois) of an
image, K classes with the background. Boxes are (y1, x1, y2, x2).
"""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from ann.backbones.building import build_backbone
from ann.layers import run_layers
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.anchors import make_anchors
from maskrcnn.network.boxes import normalise_boxes
from maskrcnn.network.feature_pyramid import build_feature_pyramid
from maskrcnn.network.heads import BOX_POOL_SIZE, MASK_POOL_SIZE, build_box_head, build_mask_head
from maskrcnn.network.region_proposal import build_region_proposal
from maskrcnn.network.roi_pooling import flatten_pyramid, pool_flat
from maskrcnn.network.steps import choose_steps, foreground_scores, pyramid_shapes

__all__ = [
    "MaskRCNN",
    "build_network",
    "foreground_scores",
    "normalised_anchors",
    "pool_rows",
    "pyramid_cells",
]


def build_network(config: MaskRCNNConfig) -> MaskRCNN:
    """The network that `config` describes, with initial weights, under Keras' global dtype policy.

    Weights are drawn from Keras' global seed generator (`keras.utils.set_random_seed`).
    """
    return MaskRCNN(config)


class MaskRCNN(keras.Model):
    """The parts of the network by their names; each is a functional Keras model.

    The parts know no image size: weights serve any height and width that are multiples of 64.

    Attributes:
        config: MaskRCNNConfig
        steps: what lies between the parts, see `steps.Steps`
        backbone: images (B, H, W, bands) -> [C2, C3, C4, C5]
        feature_pyramid: [C2, C3, C4, C5] -> [P2, P3, P4, P5, P6]
        rpn: level of the pyramid -> logits (B, anchors of the level, 2), deltas (B, anchors of the level, 4)
        features: the three above in one: images -> [P2, P3, P4, P5, P6, logits (B, A, 2), deltas (B, A, 4)]
        box_head: (n, 7, 7, channels) -> logits (n, K), deltas (n, K, 4)
        mask_head: (n, 14, 14, channels) -> probabilities (n, 28, 28, K)
    """

    def __init__(self, config: MaskRCNNConfig):
        # autocast off: images are the only input, and their first layer casts them itself
        super().__init__(name="mask_rcnn", dtype="float32", autocast=False)
        self.config = config
        self.steps = choose_steps(config)
        self.backbone = build_backbone(config.backbone, config.bands, config.variant.backbone)
        channels = config.pyramid_channels
        self.feature_pyramid = build_feature_pyramid(
            [output.shape[-1] for output in self.backbone.outputs], channels
        )
        self.rpn = build_region_proposal(channels, len(config.anchor_ratios), config.variant)
        self.box_head = build_box_head(channels, config.class_count, config.variant)
        self.mask_head = build_mask_head(channels, config.class_count, config.variant)

        images = keras.Input((None, None, config.bands), name="images")
        pyramid = self.feature_pyramid(self.backbone(images))
        logits, deltas = zip(*(self.rpn(level) for level in pyramid), strict=True)
        logits = keras.layers.Concatenate(axis=1, dtype="float32", name="rpn_class_logits")(logits)
        deltas = keras.layers.Concatenate(axis=1, dtype="float32", name="rpn_bbox")(deltas)
        self.features = keras.Model(images, [*pyramid, logits, deltas], name="features")
        self.train_batch_norm = False  # see `stages.set_trainable`
        self.built = True

    def call(self, images, training=False):
        """Pyramid and proposals' raw values: ([P2..P6], logits (B, A, 2), deltas (B, A, 4))."""
        *pyramid, logits, deltas = run_layers(self.features, images, training)
        return pyramid, logits, deltas

    def classify(self, cells, rois, image_shape, training=False):
        """Class and box of each region.

        Args:
            cells: (B, cells, channels), P2 to P5 as `pyramid_cells` flattens them.
            rois: (B, n, 4) float32, in the unit of the model's steps.
            image_shape: (height, width) of the images, pixels.

        Returns:
            logits (B, n, K) float32, deltas (B, n, K, 4) float32.
        """
        count, classes = rois.shape[1], self.config.class_count
        logits, deltas = run_layers(
            self.box_head, self._pool(cells, rois, BOX_POOL_SIZE, image_shape), training
        )
        return ops.reshape(logits, (-1, count, classes)), ops.reshape(deltas, (-1, count, classes, 4))

    def segment(self, cells, rois, image_shape, training=False):
        """Mask of each region and class, (B, n, 28, 28, K) float32 probabilities; arguments as `classify`."""
        masks = run_layers(self.mask_head, self._pool(cells, rois, MASK_POOL_SIZE, image_shape), training)
        return ops.reshape(masks, (-1, rois.shape[1], *masks.shape[1:]))

    def _pool(self, cells, rois, size, image_shape):
        pooled = self.steps.pool(cells, rois, size, image_shape)
        return ops.reshape(pooled, (-1, size, size, cells.shape[-1]))

    def anchors(self, image_shape=None):
        """Anchors of an image of `image_shape` (the config's by default), (A, 4) float32 pixels, NumPy."""
        shape = self.config.image_shape if image_shape is None else tuple(image_shape)
        variant = self.config.variant
        return _anchors(
            shape,
            self.config.anchor_scales,
            self.config.anchor_ratios,
            variant.anchors_rounded,
            variant.strides_fitted,
        )

    def unit_anchors(self, image_shape) -> np.ndarray:
        """`anchors` in the unit of the model's steps."""
        return ops.convert_to_numpy(self.steps.to_unit(self.anchors(image_shape), image_shape))


def pyramid_cells(pyramid):
    """P2 to P5 of [P2..P6] in one row, (B, cells, channels), from which regions are pooled."""
    return flatten_pyramid(pyramid[:4])


def pool_rows(cells, rois, size: int, image_shape, first_cell=0):
    """Pooled features of all regions in one row, (B * n, size, size, channels); see `pool_flat`."""
    pooled = pool_flat(cells, pyramid_shapes(image_shape), rois, size, image_shape, first_cell)
    return ops.reshape(pooled, (-1, size, size, cells.shape[-1]))


def normalised_anchors(anchors: np.ndarray, image_shape) -> np.ndarray:
    """`anchors` (A, 4) float32 pixels as normalised boxes, NumPy."""
    return ops.convert_to_numpy(normalise_boxes(anchors, image_shape))


@functools.lru_cache(maxsize=4)
def _anchors(shape, scales, ratios, rounded, fitted) -> np.ndarray:
    anchors = make_anchors(shape, scales, ratios, rounded=rounded, fitted=fitted)
    anchors.flags.writeable = False
    return anchors
