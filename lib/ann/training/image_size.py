"""How images become the input of a network."""

from __future__ import annotations

from dataclasses import dataclass

from ann.data.dataset import LabelledImage
from ann.data.samples.augmentation import ZOOM_LIMIT
from ann.errors import AnnError, DatasetError
from ann.multiples import check_multiple


@dataclass(frozen=True)
class ImageSize:
    """How images become the network's input.

    fixed: all have one size, nothing is resized or padded. multiple: what sides must be multiples of, pixels.
    whole: each image is seen as a whole; large ones are shrunk.
    """

    min_dim: int
    max_dim: int
    fixed: bool
    multiple: int = 64
    whole: bool = False

    @property
    def enlarged_to(self) -> int:
        """Images whose shorter side is below are enlarged to it, pixels; 0: none is."""
        return 0 if self.fixed else self.min_dim

    @property
    def shrunk_to(self) -> int | None:
        """Images whose longer side is above are shrunk to it, pixels; None: none is."""
        return self.max_dim if self.whole else None

    @property
    def zoom(self) -> float:
        """Samples show their objects at 1 / zoom to zoom times their size."""
        return 1.0 if self.fixed else ZOOM_LIMIT

    def __post_init__(self):
        for name, value in (("images_min_dim", self.min_dim), ("images_max_dim", self.max_dim)):
            if value:
                check_multiple(name, value, self.multiple)
        if self.min_dim > self.max_dim:
            raise AnnError(
                f"images_min_dim={self.min_dim} is larger than images_max_dim={self.max_dim}. "
                "Lower the one or raise the other"
            )


def network_input_shape(images: tuple[LabelledImage, ...], size: ImageSize) -> tuple[int, int]:
    """(height, width) of the network's input, pixels.

    Raises:
        DatasetError: with `size.fixed`, images of different sizes or of sides the network can't take.
    """
    if not size.fixed:
        return (size.max_dim, size.max_dim)
    first = images[0]
    for image in images:
        if (image.height, image.width) != (first.height, first.width):
            raise DatasetError(
                f"The flag -n needs images of one size, but {first.path} has {first.height} x {first.width} "
                f"pixels and {image.path} has {image.height} x {image.width}. Leave the flag out"
            )
    if first.height % size.multiple or first.width % size.multiple:
        raise DatasetError(
            f"The flag -n needs image sides that are multiples of {size.multiple}, but the images have "
            f"{first.height} x {first.width} pixels. Leave the flag out"
        )
    return (first.height, first.width)
