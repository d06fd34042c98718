"""Images that show the same: pixel by pixel, nearly (stored again, resized, brightened), or the same ground.

A network that is scored on what it has learnt by heart looks better than it is, so such images are one scene,
which no split parts. Images are compared by a hash of where they get brighter from left to right, after
Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, and then by their means in
16 x 16 blocks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, name_some
from ann.data.ground import Groups, comparable, overlapping
from ann.data.pixels.means import block_means
from ann.errors import DatasetError

BLOCKS = 16  # along a side, whose means are compared
HASH_PARTS = 4  # of 16 bits each: of two hashes that differ in up to 3 bits one part is the same
MOST_BITS = 6  # of 64 that may differ
ALIKE = 0.97  # correlation of the means from which images are nearly the same
FLATTEST = 1e-3  # spread of the means, relative to their size, below which an image shows nothing


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What images are compared by.

    digest: of size and pixels; bits: 4 uint16; means: (256,) float32, standardised.
    """

    digest: str
    bits: np.ndarray
    means: np.ndarray


def fingerprint(pixels: np.ndarray) -> Fingerprint | None:
    """Of an image (H, W, C); None for one that shows nothing, as all of it has about one value."""
    grey = pixels.mean(axis=-1, dtype=np.float32)
    means = block_means(grey, BLOCKS, BLOCKS)
    spread = means.std()
    if not spread > FLATTEST * max(1.0, abs(float(means.mean()))):
        return None
    columns = block_means(grey, 8, 9)
    bits = np.packbits(columns[:, 1:] > columns[:, :-1]).view(np.uint16)
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return Fingerprint(digest.hexdigest(), bits, ((means - means.mean()) / spread).ravel())


def join_duplicates(dataset: Dataset, report: Callable[[int, int], None] | None = None) -> Dataset:
    """The dataset with one `source` for all images that show the same, and notes that name them.

    report: told how many images of how many have been looked at. All images are read once.

    Raises:
        DatasetError: an image can't be read, or one of two classes.
    """
    images = (*dataset.images, *dataset.validation)
    prints = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as workers:
        for one in workers.map(lambda image: fingerprint(image.read(None).image), images):
            prints.append(one)
            if report:
                report(len(prints), len(images))
    digests = [one.digest if one else None for one in prints]
    _check_classes(images, digests, dataset.classes)
    exact, near = Groups(len(images)), Groups(len(images))
    exact.join_equal(digests)
    for one, other in near_pairs(prints):
        near.join(one, other)
    groups = Groups(len(images))
    groups.join_equal([image.source for image in images])
    for index in range(len(images)):
        groups.join(index, exact.first(index))
        groups.join(index, near.first(index))
    for members, corners in comparable(images):
        for one, other in overlapping(corners):
            groups.join(members[one], members[other])
    joined = tuple(
        replace(image, source=images[groups.first(index)].source) for index, image in enumerate(images)
    )
    count = len(dataset.images)
    notes = [*_note(images, exact, "the same"), *_note(images, near, "nearly the same", exact)]
    return replace(dataset, images=joined[:count], validation=joined[count:], notes=(*dataset.notes, *notes))


def near_pairs(prints: Sequence[Fingerprint | None]) -> Iterator[tuple[int, int]]:
    """Pairs of images that are nearly the same.

    Time grows with the number of images and that of those that share a part of their hash.
    """
    seen: set[tuple[int, int]] = set()
    for part in range(HASH_PARTS):
        buckets: dict[int, list[int]] = {}
        for index, one in enumerate(prints):
            if one is not None:
                buckets.setdefault(int(one.bits[part]), []).append(index)
        for members in buckets.values():
            for place, other in enumerate(members):
                for one in members[:place]:
                    if (one, other) not in seen and _alike(prints[one], prints[other]):
                        seen.add((one, other))
                        yield one, other


def _alike(one: Fingerprint, other: Fingerprint) -> bool:
    differing = int(np.unpackbits((one.bits ^ other.bits).view(np.uint8)).sum())
    return differing <= MOST_BITS and float(one.means @ other.means) / len(one.means) >= ALIKE


def _check_classes(
    images: Sequence[LabelledImage], digests: Sequence[str | None], classes: Sequence[str]
) -> None:
    """Raise DatasetError where an image is of two classes."""
    first: dict[str, LabelledImage] = {}
    wrong = []
    for image, digest in zip(images, digests, strict=True):
        other = first.setdefault(digest, image) if digest else image
        if other.class_ids[0] != image.class_ids[0]:
            names = (classes[one.class_ids[0] - 1] for one in (other, image))
            wrong.append(f"{other.name} ({next(names)}) is {image.name} ({next(names)})")
    if wrong:
        raise DatasetError(
            f"The same image is of two classes: {name_some(wrong)}. Keep it in the one that it belongs to"
        )


def _note(
    images: Sequence[LabelledImage], groups: Groups, what: str, known: Groups | None = None
) -> list[str]:
    """A note that names the images of each group, unless all of it is known."""
    members: dict[int, list[int]] = {}
    for index in range(len(images)):
        members.setdefault(groups.first(index), []).append(index)
    found = [
        " = ".join(images[index].name for index in one[:3]) + (" ..." if len(one) > 3 else "")
        for one in members.values()
        if len(one) > 1 and not (known and len({known.first(index) for index in one}) == 1)
    ]
    if not found:
        return []
    return [
        f"{len(found)} group(s) of images are {what}, and stay together on one side of each split: "
        f"{name_some(found)}."
    ]
