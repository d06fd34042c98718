"""Set images apart for validation, by scene: no part of a scene stands on both sides.

Only when there is a single scene is it cut, into a strip for validation and the rest; several images of one
extent are cut alike. Which images or strip are taken depends on the seed; of a few draws the one is kept
whose classes are spread best, because a class without any instance on one side can be neither learned nor
scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, count_instances, name_some, part_of_image
from ann.data.pixels.windows import Window
from ann.errors import DatasetError

DRAWS = 16  # how many random splits are compared
MOST_STRIPS = 10
SMALLEST_SIDE = 64  # pixels of the shorter side of a strip


def split_dataset(dataset: Dataset, share: float = 0.2, seed: int = 0) -> Dataset:
    """The dataset with `validation` filled: about `share` of its images; unchanged where it already is.

    Raises:
        DatasetError: the only scene is too small to be cut.
    """
    if dataset.validation:
        return dataset
    if len({image.source for image in dataset.images}) > 1:
        train, validation = _split_scenes(dataset.images, len(dataset.classes), share, seed)
    elif len({(image.height, image.width, image.extent) for image in dataset.images}) == 1 and (
        len(dataset.images) == 1 or dataset.images[0].extent is not None
    ):
        train, validation = _cut_scene(dataset.images, share, seed)
    else:
        raise DatasetError(
            f"All images are parts of the scene {dataset.images[0].source}, so none can be set apart for "
            "validation. Add images of another scene, or validate with none (validation_steps=0)."
        )
    note = f"Validation: {name_some([image.name for image in validation])}."
    return replace(dataset, images=train, validation=validation, notes=(*dataset.notes, note))


def hold_out(
    dataset: Dataset, share: float = 0.1, seed: int = 0
) -> tuple[Dataset, tuple[LabelledImage, ...]]:
    """Leave about `share` of the images out: the dataset without them, and those images.

    Raises:
        DatasetError: there is only one scene.
    """
    if len({image.source for image in dataset.images}) < 2:
        raise DatasetError(
            f"To leave images out at least two are needed, there is {dataset.images[0].path} alone. Add "
            "images or train on all of them."
        )
    kept, held = _split_scenes(dataset.images, len(dataset.classes), share, seed)
    return replace(dataset, images=kept), held


def _split_scenes(
    images: Sequence[LabelledImage], class_count: int, share: float, seed: int
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """(kept, set apart), both in the order of `images`, both with one scene at least."""
    scenes: dict[str, list[LabelledImage]] = {}
    for image in images:
        scenes.setdefault(image.source, []).append(image)
    wanted = max(1, round(share * len(images)))
    generator = np.random.default_rng([seed, 3])
    candidates = []
    for _ in range(DRAWS):
        drawn: list[str] = []
        for index in generator.permutation(len(scenes))[:-1]:
            if sum(len(scenes[source]) for source in drawn) >= wanted:
                break
            drawn.append(list(scenes)[index])
        apart = tuple(image for image in images if image.source in drawn)
        kept = tuple(image for image in images if image.source not in drawn)
        candidates.append((kept, apart))
    return min(candidates, key=lambda pair: _unevenness(*pair, class_count, share))


def _cut_scene(
    images: Sequence[LabelledImage], share: float, seed: int
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """(the parts before and after a strip across the longer side, the strip), of each image of one extent."""
    first = images[0]
    across = first.width >= first.height
    length = first.width if across else first.height
    strips = min(MOST_STRIPS, max(2, round(1 / share)), length // SMALLEST_SIDE)
    if strips < 2:
        raise DatasetError(
            f"The only image, {first.path}, is too small ({first.height} x {first.width} pixels) to set a "
            "part of it apart for validation. Add images."
        )
    ends = [round(number * length / strips) for number in range(strips + 1)]

    def part(start: int, end: int) -> tuple[LabelledImage, ...]:
        if start == end:
            return ()
        if across:
            window = Window(row=0, column=start, height=first.height, width=end - start)
        else:
            window = Window(row=start, column=0, height=end - start, width=first.width)
        return tuple(part_of_image(image, window) for image in images)

    # Half of the strips compete, so that the seed has a say.
    drawn = np.random.default_rng([seed, 4]).permutation(strips)[: strips // 2 + 1]
    candidates = [
        (part(0, ends[index]) + part(ends[index + 1], length), part(ends[index], ends[index + 1]))
        for index in drawn
    ]
    return min(candidates, key=lambda pair: _unevenness(*pair, len(first.instance_counts), share))


def _unevenness(
    kept: Sequence[LabelledImage], apart: Sequence[LabelledImage], class_count: int, share: float
) -> float:
    """How far the classes' shares are from the wanted one; a class missing on a side weighs most."""
    kept_counts = np.array(count_instances(kept, class_count), dtype=np.float64)
    apart_counts = np.array(count_instances(apart, class_count), dtype=np.float64)
    away = np.abs(apart_counts / np.maximum(kept_counts + apart_counts, 1) - share)
    return float(away.sum() + 100 * (kept_counts == 0).sum() + 10 * (apart_counts == 0).sum())
