"""Set images apart class by class: each class stands on both sides, and no scene does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.data.dataset import LabelledImage
from ann.data.split import Images, by_source
from ann.errors import DatasetError


def set_apart_by_class(
    images: Images, classes: Sequence[str], share: float, seed: int
) -> tuple[Images, Images]:
    """(kept, set apart), both in the order of `images`: about `share` of each class, one image at least.

    Whole scenes are drawn, for the rarest class first.

    Raises:
        DatasetError: a class that can't stand on both sides, as it has one image or all are one scene.
    """
    scenes = list(by_source(images).values())
    counts = np.array([np.sum([images[n].instance_counts for n in one], axis=0) for one in scenes])
    total = counts.sum(axis=0)
    present = counts > 0  # (scenes, classes)
    apart = np.zeros(len(scenes), dtype=bool)
    generator = np.random.default_rng([seed, 5])
    for index in np.argsort(total, kind="stable"):
        of_class = np.flatnonzero(present[:, index])
        if len(of_class) < 2:
            raise DatasetError(_too_few(classes[index], [images[n] for s in of_class for n in scenes[s]]))
        wanted = max(1, round(share * total[index]))
        for scene in generator.permutation(of_class).tolist():
            if counts[apart, index].sum() >= wanted:
                break
            # of each class in the scene another one stays
            stays = present[~apart].sum(axis=0) > present[scene]
            if not apart[scene] and stays.all():
                apart[scene] = True
        if not counts[apart, index].any():
            raise DatasetError(_too_few(classes[index], [images[n] for s in of_class for n in scenes[s]]))
    chosen = {number for scene in np.flatnonzero(apart) for number in scenes[scene]}
    kept = tuple(image for number, image in enumerate(images) if number not in chosen)
    return kept, tuple(image for number, image in enumerate(images) if number in chosen)


def _too_few(name: str, images: Sequence[LabelledImage]) -> str:
    why = "a single image" if len(images) == 1 else f"{len(images)} images that can't be parted (one scene)"
    return (
        f"The class {name!r} has {why} to be set apart from: {images[0].path}. A class needs images of its "
        f"own "
        "for training and for validation (validation_steps=0 leaves that out), and with the flag -s for the "
        "test. Add images of other places, or leave the class out"
    )
