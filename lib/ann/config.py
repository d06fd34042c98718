"""What every model is: its classes, and what is needed to scale and cut its input."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

from ann.data.band_labels import known_labels

# by the name that a model file has for its network: the modules that make and use it
MODULES = {
    "maskrcnn": ("i.ann.maskrcnn.train", "i.ann.maskrcnn.detect"),
    "unet": ("i.ann.unet.train", "i.ann.unet.predict"),
    "classifier": ("i.ann.classifier.train", "i.ann.classifier.predict"),
}


def for_bands(values: tuple[float, ...], bands: int) -> tuple[float, ...]:
    """Values of bands for another number of bands: added ones have the mean, of fewer they are the first."""
    added = (sum(values) / len(values),) * (bands - len(values))
    return (*values, *added)[:bands]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What all models share of their description, stored as JSON in the model file.

    Each network has a dataclass of its own below this one, with its name as in `MODULES` and the backbones
    it can have.

    Raises:
        ValueError: a value that no network can be built from; the message says which.
    """

    network: ClassVar[str]
    backbones: ClassVar[tuple[str, ...]]
    backbone_option: ClassVar[str] = "backbone"  # of the module that trains it

    classes: tuple[str, ...]  # by class id; id 0 is the background and not listed
    backbone: str
    image_shape: tuple[int, int]  # (height, width) of the network's input, pixels
    band_mean: tuple[float, ...] = (123.7, 116.8, 103.9)  # input = (pixel - mean) / scale, band by band
    band_scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel_size: float | None = None  # metres on the ground per pixel of the training images
    band_labels: tuple[str, ...] = ()  # what the bands mean, see `data.band_labels`; () where not known

    def __post_init__(self):
        for field in dataclasses.fields(self):  # JSON has lists only
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        if not self.classes or len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ValueError(f"Expected distinct, non-empty class names, received {self.classes!r}")
        if self.backbone not in self.backbones:
            raise ValueError(
                f"Expected a backbone of {', '.join(self.backbones)}, received {self.backbone!r}"
            )
        multiple = self.size_multiple
        if len(self.image_shape) != 2 or any(side <= 0 or side % multiple for side in self.image_shape):
            raise ValueError(
                f"Expected an image height and width that are multiples of {multiple}, "
                f"received {self.image_shape}"
            )
        if len(self.band_mean) != len(self.band_scale) or not self.band_mean or 0 in self.band_scale:
            raise ValueError(
                "Expected a mean and a non-zero scale for each band, "
                f"received {self.band_mean} and {self.band_scale}"
            )
        if self.band_labels and known_labels(self.band_labels) != self.band_labels:
            raise ValueError(f"Expected distinct labels of bands, received {self.band_labels!r}")
        if len(self.band_labels) not in (0, len(self.band_mean)):
            raise ValueError(
                f"Expected labels of {len(self.band_mean)} bands or none, received {self.band_labels!r}"
            )

    @property
    def size_multiple(self) -> int:
        """What height and width of the input must be multiples of, pixels."""
        raise NotImplementedError

    @property
    def backbone_name(self) -> str:
        """The backbone that can start from weights of its own."""
        return self.backbone

    @property
    def bands(self) -> int:
        """Number of bands of the input."""
        return len(self.band_mean)

    @property
    def class_count(self) -> int:
        """Number of classes with the background."""
        return len(self.classes) + 1

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
