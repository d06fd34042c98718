"""Scenes by where images lie: all that have their middle in a square of the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ann.data.dataset import Dataset, LabelledImage, name_some
from ann.errors import DatasetError


def join_blocks(dataset: Dataset, side: float) -> Dataset:
    """The dataset with one `source` for images of one square, `side` map units wide.

    Raises:
        DatasetError: it isn't known where an image lies.
    """
    images = (*dataset.images, *dataset.validation)
    lost = [image.name for image in images if _middle(image) is None]
    if lost:
        raise DatasetError(
            f"It is not known where these images lie: {name_some(lost)}. scenes=block needs a georeference; "
            "use scenes=folder or scenes=image"
        )
    joined = tuple(replace(image, source=_block(image, side)) for image in images)
    count = len(dataset.images)
    return replace(dataset, images=joined[:count], validation=joined[count:])


def _block(image: LabelledImage, side: float) -> str:
    x, y = _middle(image)
    frame = "" if image.place is None else image.place.frame
    return f"block {int(x // side)} {int(y // side)} {frame}".strip()


def _middle(image: LabelledImage) -> Sequence[float] | None:
    """(x, y) in map units."""
    if image.extent is not None:
        west, south, east, north = image.extent
        return (west + east) / 2, (south + north) / 2
    if image.place is None:
        return None
    a, b, c, d, e, f = image.place.transform[:6]
    column, row = image.width / 2, image.height / 2
    return a * column + b * row + c, d * column + e * row + f
