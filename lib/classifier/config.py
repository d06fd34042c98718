"""What a classifier is beside what every model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ann.config import ModelConfig

STRIDE = 32  # of all backbones
# by backbone: the layer from which on the second stage of fine-tuning trains
UPPER = {
    "densenet121": "pool3_bn",
    "efficientnet_lite0": "block4a_expand_conv",
    "inceptionv3": "conv2d_41",
    "mobilenetv2": "block_10_expand",
    "resnet18": "res4a_branch2a",
    "resnet50": "res4a_branch2a",
}
SMALLEST_SIDE = {"inceptionv3": 96}  # pixels; of the others one stride


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ModelConfig):
    """Description of a classifier.

    image_shape: images are fitted into it as a whole, padded with zeros.
    chip_size: side of the ground around a feature, metres (map units where they are no known length), None:
        as large as the feature; inside: cells outside of areas are not seen.
    label_smoothing: share of the certainty that training takes from the right class and gives to all.
    """

    network: ClassVar[str] = "classifier"
    backbones: ClassVar[tuple[str, ...]] = tuple(UPPER)

    backbone: str = "efficientnet_lite0"
    image_shape: tuple[int, int] = (224, 224)
    label_smoothing: float = 0.1
    chip_size: float | None = None
    inside: bool = False

    def __post_init__(self):
        super().__post_init__()
        if len(self.classes) < 2:
            raise ValueError(f"Expected two classes or more, received {', '.join(self.classes)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Expected a label smoothing from 0 to below 1, received {self.label_smoothing}")

    @property
    def size_multiple(self) -> int:
        """What height and width of the input must be multiples of, pixels."""
        return STRIDE
