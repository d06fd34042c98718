"""The two heads over pooled regions: class and box, and mask.

Regions of all images stand in one row: (n, size, size, channels), n = batch * regions per image.
"""

from __future__ import annotations

import keras
from keras import layers

from ann.backbones.initial import initial
from ann.backbones.resnet import convolution, normalisation
from ann.backbones.whole_convolution import WholeConvolution
from maskrcnn.config import LEGACY, Variant

BOX_POOL_SIZE = 7
MASK_POOL_SIZE = 14
MASK_SIZE = 28


def build_box_head(channels: int, class_count: int, variant: Variant = LEGACY) -> keras.Model:
    """Class and box of a region.

    Input: (n, 7, 7, channels).
    Outputs: logits (n, class_count) float32; deltas (n, class_count, 4) float32, one box per class.
    """
    features = keras.Input((BOX_POOL_SIZE, BOX_POOL_SIZE, channels), name="roi_align_classifier")
    x = features
    for index in range(1, variant.box_convolutions + 1):
        x = convolution(channels, 3, name=f"mrcnn_box_conv{index}")(x)
        x = normalisation(f"mrcnn_box_bn{index}", variant.epsilon)(x)
        x = layers.Activation("relu", name=f"mrcnn_box_relu{index}")(x)
    for index, size in ((1, BOX_POOL_SIZE), (2, 1))[: variant.box_layers]:
        x = WholeConvolution(4 * channels, size, name=f"mrcnn_class_conv{index}")(x)
        if variant.box_normalised:
            x = normalisation(f"mrcnn_class_bn{index}", variant.epsilon)(x)
        x = layers.Activation("relu", name=f"mrcnn_class_relu{index}")(x)
    logits = layers.Dense(
        class_count,
        kernel_initializer=initial(keras.initializers.RandomNormal(stddev=0.01)),
        name="mrcnn_class_logits",
    )(x)
    deltas = layers.Dense(
        class_count * 4,
        kernel_initializer=initial(keras.initializers.RandomNormal(stddev=0.001)),
        name="mrcnn_bbox_fc",
    )(x)
    logits = layers.Activation("linear", dtype="float32", name="mrcnn_class_float32")(logits)
    deltas = layers.Reshape((class_count, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return keras.Model(features, [logits, deltas], name="box_head")


def build_mask_head(channels: int, class_count: int, variant: Variant = LEGACY) -> keras.Model:
    """Mask of a region, one for each class.

    Input: (n, 14, 14, channels).
    Output: (n, 28, 28, class_count) float32, probabilities.
    """
    features = keras.Input((MASK_POOL_SIZE, MASK_POOL_SIZE, channels), name="roi_align_mask")
    x = features
    for index in (1, 2, 3, 4):
        x = convolution(channels, 3, name=f"mrcnn_mask_conv{index}")(x)
        if variant.mask_normalised:
            x = normalisation(f"mrcnn_mask_bn{index}", variant.epsilon)(x)
        x = layers.Activation("relu", name=f"mrcnn_mask_relu{index}")(x)
    x = layers.Conv2DTranspose(
        channels,
        2,
        strides=2,
        activation="relu",
        # the fan that Keras counts is four times too large: each output cell sees one input cell only
        kernel_initializer=initial(keras.initializers.VarianceScaling(8.0, "fan_in", "untruncated_normal")),
        name="mrcnn_mask_deconv",
    )(x)
    x = layers.Conv2D(
        class_count,
        1,
        kernel_initializer=initial(keras.initializers.RandomNormal(stddev=0.01)),
        name="mrcnn_mask",
    )(x)
    masks = layers.Activation("sigmoid", dtype="float32", name="mrcnn_mask_probability")(x)
    return keras.Model(features, masks, name="mask_head")
