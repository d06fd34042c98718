"""What the module i.ann.classifier.predict can be asked to tell the classes of: photos, features, windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ann.grass.exchange import FinishedMap
from ann.grass.temporary import TemporaryMaps
from classifier.inference import Images, Told


class Work(Images, Protocol):
    """Images, and what becomes of what is told of them."""

    def opened(self, temporary: TemporaryMaps) -> AbstractContextManager[None]:
        """Images can be read inside of the context, and results taken."""

    def take(self, told: Iterator[Told]) -> Iterator[Told]:
        """Keep what is told, in the order of numbers, and hand it on."""

    def name(self, index: int) -> str:
        """What to call an image."""

    def finish(self, temporary: TemporaryMaps) -> list[FinishedMap]:
        """Maps that are complete but for their names, once everything is told."""
