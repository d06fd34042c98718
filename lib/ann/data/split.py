"""Set images apart for validation, by scene: no part of a scene stands on both sides.

A scene that holds most of the images, as tiles of one mosaic that overlap do, is cut, into a strip for
validation and the rest: all its images along the same line. Which scenes or strip are taken depends on the
seed; of a few draws the one is kept whose classes are spread best, because a class without any instance on
one side can be neither learned nor scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, count_instances, name_some, part_of_image
from ann.data.pixels.windows import Window
from ann.errors import DatasetError

DRAWS = 16  # how many random splits are compared
MOST_STRIPS = 10
SMALLEST_SIDE = 64  # pixels of the shorter side of a strip, and of what is left of an image beside one
ALIGNMENT = 1e-6  # pixels; a line closer than this to a border of pixels is on it

Images = tuple[LabelledImage, ...]
# images, classes, share, seed -> (kept, set apart)
SetApart = Callable[[Images, Sequence[str], float, int], tuple[Images, Images]]


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """Where an image lies: coordinates of its upper left corner, and the steps of a column and a row; their
    signs are those of the axes.
    """

    x: float
    y: float
    column_step: float
    row_step: float


def split_dataset(
    dataset: Dataset, share: float = 0.2, seed: int = 0, set_apart: SetApart | None = None
) -> Dataset:
    """The dataset with `validation` filled: about `share` of its images; unchanged where it already is, but
    for a note on images of it that show ground of training images.

    set_apart: how images are set apart; None: `by_scene`.

    Raises:
        DatasetError: there is one scene, and it is too small to be cut, or it isn't known where its images
            lie.
    """
    if dataset.validation:
        trained = {image.source for image in dataset.images}
        shared = [image.name for image in dataset.validation if image.source in trained]
        if not shared:
            return dataset
        note = (
            f"{len(shared)} image(s) for validation show ground that training images show, too: "
            f"{name_some(shared)}. Scores on them are too good."
        )
        return replace(dataset, notes=(*dataset.notes, note))
    train, validation = (set_apart or by_scene)(dataset.images, dataset.classes, share, seed)
    note = f"Validation: {name_some([image.name for image in validation])}."
    return replace(dataset, images=train, validation=validation, notes=(*dataset.notes, note))


def hold_out(
    dataset: Dataset, share: float = 0.1, seed: int = 0, set_apart: SetApart | None = None
) -> tuple[Dataset, Images]:
    """Leave about `share` of the images out: the dataset without them, and those images or parts of images.

    set_apart: how; None: `by_scene`. Ground that the dataset sets apart for validation is never left out.

    Raises:
        DatasetError: there is only one image, or all of them show the same ground.
    """
    validated = {image.source for image in dataset.validation}
    free = tuple(image for image in dataset.images if image.source not in validated)
    bound = tuple(image for image in dataset.images if image.source in validated)
    if len({image.source for image in free}) + bool(bound) < 2 and not _spread(free):
        raise DatasetError(
            f"To leave images out at least two are needed that show different ground, there is "
            f"{dataset.images[0].path} alone. Add images or train on all of them."
        )
    kept, held = (set_apart or by_scene)(free, dataset.classes, share, seed)
    return replace(dataset, images=bound + kept), held


def by_source(images: Sequence[LabelledImage]) -> dict[str, list[int]]:
    """The numbers of the images of each scene, scenes in the order of their first image."""
    scenes: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        scenes.setdefault(image.source, []).append(number)
    return scenes


def by_scene(images: Images, classes: Sequence[str], share: float, seed: int) -> tuple[Images, Images]:
    """(kept, set apart): whole scenes, or a strip of the one that most images show."""
    if len({image.source for image in images}) == 1:
        return _cut_scene(images, share, seed)
    members = scene_to_cut(images, share)
    if members is None:
        return _split_scenes(images, len(classes), share, seed)
    kept, apart = _cut_scene(tuple(images[number] for number in members), share, seed)
    chosen = set(members)
    return tuple(image for number, image in enumerate(images) if number not in chosen) + kept, apart


def scene_to_cut(images: Sequence[LabelledImage], share: float) -> list[int] | None:
    """The numbers of the images of the scene that has to be cut to set `share` of all images apart.

    That is the only one, or one that holds most images and more than that. None: there is none, or it can't
    be cut.
    """
    scenes = by_source(images)
    largest = max(scenes.values(), key=len)
    most = len(largest) > len(images) / 2 and len(largest) > max(1, round(share * len(images)))
    members = [images[number] for number in largest]
    cuttable = _rectangles(members) is not None if len(scenes) == 1 else most and _spread(members)
    return largest if cuttable else None


def _split_scenes(images: Images, class_count: int, share: float, seed: int) -> tuple[Images, Images]:
    """(kept, set apart), both in the order of `images`, both with one scene at least."""
    wanted = max(1, round(share * len(images)))
    members = list(by_source(images).values())
    counts = np.array([count_instances([images[n] for n in one], class_count) for one in members])
    total = counts.sum(axis=0)
    generator = np.random.default_rng([seed, 3])
    candidates = []
    for _ in range(DRAWS):
        drawn, size = [], 0
        for index in generator.permutation(len(members))[:-1].tolist():
            if size >= wanted:
                break
            drawn.append(index)
            size += len(members[index])
        apart = counts[drawn].sum(axis=0)
        candidates.append((_unevenness(total - apart, apart, share), drawn))
    drawn = min(candidates, key=lambda candidate: candidate[0])[1]
    chosen = {number for index in drawn for number in members[index]}
    kept = tuple(image for number, image in enumerate(images) if number not in chosen)
    return kept, tuple(image for number, image in enumerate(images) if number in chosen)


def _cut_scene(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """(what lies before and after a strip across the longer side of the ground, what lies in it).

    Parts of images narrower than `SMALLEST_SIDE` beside the line are in neither.
    """
    first = images[0]
    places = _rectangles(images)
    if places is None:
        raise DatasetError(
            f"All images are parts of the scene {first.source}, so none can be set apart for validation. "
            "Add images of another scene, or validate with none (validation_steps=0)."
        )
    spans = [_span(places, images, across) for across in (True, False)]
    across = spans[0][1] >= spans[1][1]
    begin, length, step = spans[not across]
    strips = min(MOST_STRIPS, max(2, round(1 / share)), int(length) // SMALLEST_SIDE)
    if strips < 2:
        raise DatasetError(
            f"{_named(images)} too small ({first.height} x {first.width} pixels) to set a part of it apart "
            "for validation. Add images."
        )
    ends = [round(number * length / strips) for number in range(strips + 1)]

    def parts(low: int, high: int) -> Images:
        return tuple(_parts(images, places, across, begin, step, (low, high)))

    # Half of the strips compete, so that the seed has a say.
    drawn = np.random.default_rng([seed, 4]).permutation(strips)[: strips // 2 + 1].tolist()
    candidates = [
        (parts(-1, ends[index]) + parts(ends[index + 1], ends[-1] + 1), parts(ends[index], ends[index + 1]))
        for index in drawn
    ]
    complete = [pair for pair in candidates if all(pair)]
    if not complete:
        raise DatasetError(
            f"The images that show the ground of {first.path} can't be cut so that a part of it is set "
            "apart. Add images of other ground, or validate with none (validation_steps=0)."
        )
    class_count = len(first.instance_counts)
    return min(
        complete,
        key=lambda pair: _unevenness(*(np.array(count_instances(side, class_count)) for side in pair), share),
    )


def _named(images: Images) -> str:
    if len(images) == 1:
        return f"The only image, {images[0].path}, is"
    return f"All images show the same ground ({name_some([image.path for image in images])}), which is"


def _spread(images: Sequence[LabelledImage]) -> bool:
    """Whether images of one scene lie beside one another, so that it can be cut between them."""
    places = _rectangles(images)
    return places is not None and len(set(places)) > 1


def _rectangles(images: Sequence[LabelledImage]) -> list[Rectangle] | None:
    """Where images lie in common coordinates; None where that isn't known or one is rotated."""
    if len(images) == 1:
        return [Rectangle(x=0, y=0, column_step=1, row_step=1)]
    if all(image.extent is not None for image in images):
        return [
            Rectangle(
                x=west,
                y=north,
                column_step=(east - west) / image.width,
                row_step=(south - north) / image.height,
            )
            for image in images
            for west, south, east, north in [image.extent]
        ]
    if any(image.place is None for image in images) or len({image.place.frame for image in images}) > 1:
        return None
    transforms = [image.place.transform for image in images]
    if any(one.b or one.d for one in transforms):
        return None
    signs = {(math.copysign(1, one.a), math.copysign(1, one.e)) for one in transforms}
    if len(signs) > 1:
        return None
    return [Rectangle(x=one.c, y=one.f, column_step=one.a, row_step=one.e) for one in transforms]


def _span(
    places: Sequence[Rectangle], images: Sequence[LabelledImage], across: bool
) -> tuple[float, float, float]:
    """(begin, length in pixels of the first image, step of a pixel) of the ground along columns or rows."""
    begins = [_along(place, across)[0] for place in places]
    ends = [
        begin + (image.width if across else image.height) * _along(place, across)[1]
        for begin, place, image in zip(begins, places, images, strict=True)
    ]
    step = _along(places[0], across)[1]
    begin, end = (min(begins), max(ends)) if step > 0 else (max(begins), min(ends))
    return begin, (end - begin) / step, step


def _along(place: Rectangle, across: bool) -> tuple[float, float]:
    return (place.x, place.column_step) if across else (place.y, place.row_step)


def _parts(
    images: Sequence[LabelledImage],
    places: Sequence[Rectangle],
    across: bool,
    begin: float,
    step: float,
    limits: tuple[int, int],
) -> Iterator[LabelledImage]:
    """What of each image lies between two lines, given in pixels of the first image from `begin`."""
    for image, place in zip(images, places, strict=True):
        side = image.width if across else image.height
        corner, own_step = _along(place, across)
        low, high = ((begin + limit * step - corner) / own_step for limit in limits)
        start, end = max(0, math.ceil(low - ALIGNMENT)), min(side, math.floor(high + ALIGNMENT))
        if end - start < min(SMALLEST_SIDE, side):
            continue
        if end - start == side:
            yield image
        elif across:
            yield part_of_image(image, Window(row=0, column=start, height=image.height, width=end - start))
        else:
            yield part_of_image(image, Window(row=start, column=0, height=end - start, width=image.width))


def _unevenness(kept: np.ndarray, apart: np.ndarray, share: float) -> float:
    """How far the classes' shares are from the wanted one; a class missing on a side weighs most.

    kept, apart: instances of each class on either side.
    """
    away = np.abs(apart / np.maximum(kept + apart, 1) - share)
    return float(away.sum() + 100 * (kept == 0).sum() + 10 * (apart == 0).sum())
