"""What a model is: everything needed to rebuild a network and to scale its input."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

BACKBONES = ("resnet18", "resnet50", "resnet101")
SIZE_MULTIPLE = 64  # the coarsest pyramid level has a stride of 64 pixels


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Description of a Mask R-CNN, stored as JSON in its model file.

    The defaults from `anchor_scales` on are those of the legacy models, so a file without a description
    is rebuilt from its layers and these values. Boxes are (y1, x1, y2, x2) everywhere.

    Raises:
        ValueError: a value that no network can be built from; the message says which.
    """

    classes: tuple[str, ...]  # by class id; id 0 is the background and not listed
    backbone: str = "resnet101"
    image_shape: tuple[int, int] = (1024, 1024)  # (height, width) of the network's input, pixels
    band_mean: tuple[float, ...] = (123.7, 116.8, 103.9)  # input = (pixel - mean) / scale, band by band
    band_scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel_size: float | None = None  # map units per pixel of the training images

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

    def __post_init__(self):
        for field in dataclasses.fields(self):  # JSON has lists only
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        if not self.classes or len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ValueError(f"Expected distinct, non-empty class names, received {self.classes!r}")
        if self.backbone not in BACKBONES:
            raise ValueError(f"Expected a backbone of {', '.join(BACKBONES)}, received {self.backbone!r}")
        if len(self.image_shape) != 2 or any(side <= 0 or side % SIZE_MULTIPLE for side in self.image_shape):
            raise ValueError(
                f"Expected an image height and width that are multiples of {SIZE_MULTIPLE}, "
                f"received {self.image_shape}"
            )
        if len(self.band_mean) != len(self.band_scale) or not self.band_mean or 0 in self.band_scale:
            raise ValueError(
                "Expected a mean and a non-zero scale for each band, "
                f"received {self.band_mean} and {self.band_scale}"
            )

    @property
    def bands(self) -> int:
        """Number of bands of the input."""
        return len(self.band_mean)

    @property
    def class_count(self) -> int:
        """Number of classes with the background."""
        return len(self.classes) + 1

    @property
    def roi_candidates(self) -> int:
        """Regions of a training image that the sample is drawn from: proposals and labelled boxes."""
        return self.proposals_training + self.max_instances

    def to_json(self) -> str:
        """The description as a JSON object, keys as the fields are called."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Rebuild a description; keys of a newer version are ignored.

        Raises:
            ValueError: `text` is no JSON object, or lacks or garbles a field.
        """
        try:
            values = json.loads(text)
            known = {field.name for field in dataclasses.fields(cls)}
            return cls(**{key: value for key, value in values.items() if key in known})
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"The model's description can't be read: {error}") from error
