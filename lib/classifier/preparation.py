"""From labelled images and options to the description of a classifier."""

from __future__ import annotations

from dataclasses import replace

from ann.backbones.preprocessing import imagenet_scaling
from ann.data.dataset import Dataset
from ann.training.image_size import ImageSize
from ann.training.preparation import band_scaling, check_initial_model, shared_values
from ann.weights import ModelFile
from classifier.config import ClassifierConfig


def describe_model(
    dataset: Dataset,
    size: ImageSize,
    *,
    backbone: str,
    label_smoothing: float,
    initial: ModelFile | None,
    other_classes: bool,
    imagenet: bool,
    chip_size: float | None = None,
    inside: bool = False,
) -> ClassifierConfig:
    """The description of the model to train.

    Bands are scaled as the initial model has them, or as ImageNet weights were trained with (imagenet).

    Raises:
        AnnError: the initial model doesn't fit backbone or classes; `other_classes` (flag -e) allows other
            classes.
    """
    values = shared_values(dataset, size, backbone)
    values |= {"label_smoothing": label_smoothing, "chip_size": chip_size, "inside": inside}
    if initial is not None:
        check_initial_model(initial, dataset, backbone, other_classes)
        if initial.config.bands != dataset.images[0].bands:
            values |= band_scaling(dataset)
        return replace(initial.config, **values)
    scaling = band_scaling(dataset)
    if imagenet:
        mean, scale = imagenet_scaling(
            backbone, scaling["band_mean"], scaling["band_scale"], dataset.images[0].dtype
        )
        scaling |= {"band_mean": mean, "band_scale": scale}
    return ClassifierConfig(**(values | scaling))
