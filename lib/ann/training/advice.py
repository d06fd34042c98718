"""How long to train, for people who don't know yet."""

from __future__ import annotations

from collections.abc import Iterable

from ann.data.dataset import LabelledImage
from ann.training.settings import TrainingSettings

PASSES = 30  # times that each piece of ground is seen: a useful first model, see docs/benchmarks.md
LEAST_STEPS = 300
EPOCHS = 10  # that a run is cut into


def usual_steps(images: Iterable[LabelledImage], image_shape: tuple[int, int], batch_size: int) -> int:
    """Steps of a first training; `image_shape` is what the network sees of an image at a time, pixels."""
    height, width = image_shape
    pieces = sum(max(1.0, image.height * image.width / (height * width)) for image in images)
    return max(LEAST_STEPS, round(PASSES * pieces / batch_size))


def advice(settings: TrainingSettings) -> str:
    """A sentence for the user; empty where the run is limited by time or has about the usual length."""
    planned, usual = settings.epochs * settings.steps_per_epoch, settings.usual_steps
    if settings.minutes or usual / 2 <= planned <= 2 * usual:
        return ""
    return (
        f"epochs= and steps_per_epoch= make {planned:,} steps. A first model of these images takes about "
        f"{usual:,}: epochs={EPOCHS} steps_per_epoch={-(-usual // EPOCHS)}, or minutes= to end in time. How "
        "long they take is told after the first steps"
    )
