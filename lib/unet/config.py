"""What a U-Net is beside what every model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ann.backbones.names import BACKBONES
from ann.config import ModelConfig

PLAIN_STRIDES = {"unet": 16, "unet_vgg": 8}  # of the deepest level, pixels
BACKBONE_STRIDE = 16  # its coarser features are left out, see `network.model`
ARCHITECTURES = (*PLAIN_STRIDES, *(f"unet_{name}" for name in BACKBONES))
LOSSES = ("cross_entropy", "dice", "both")


def stride_of(architecture: str) -> int:
    """The stride of an architecture's deepest level, pixels."""
    return PLAIN_STRIDES.get(architecture, BACKBONE_STRIDE)


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ModelConfig):
    """Description of a U-Net.

    backbone: the architecture: "unet", "unet_vgg", or "unet_" and the name of a backbone.
    loss: what is made small: cross entropy, 1 - Dice coefficient, or the sum of both.
    class_weights: of the background and each class in the cross entropy; None: all count alike.
    """

    network: ClassVar[str] = "unet"
    backbones: ClassVar[tuple[str, ...]] = ARCHITECTURES
    backbone_option: ClassVar[str] = "architecture"

    backbone: str = "unet_resnet18"
    image_shape: tuple[int, int] = (256, 256)
    loss: str = "both"
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise ValueError(f"Expected a loss of {', '.join(LOSSES)}, received {self.loss!r}")
        if self.class_weights is not None and len(self.class_weights) != self.class_count:
            raise ValueError(f"Expected {self.class_count} class weights, received {len(self.class_weights)}")

    @property
    def size_multiple(self) -> int:
        """The stride of the deepest level, pixels; a window's values repeat when it is moved by it."""
        return stride_of(self.backbone)

    @property
    def backbone_name(self) -> str:
        """The backbone of the encoder; of the plain networks, which have none, the architecture."""
        return self.backbone if self.backbone in PLAIN_STRIDES else self.backbone.removeprefix("unet_")

    @property
    def output_count(self) -> int:
        """Channels of the network's output: one for a single class, else with the background."""
        return 1 if len(self.classes) == 1 else self.class_count
