"""Work that processes do together, each a part of it, such as scoring after an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Found = TypeVar("Found")


def _alone(own: object) -> list:
    return [own]


@dataclass(frozen=True)
class Sharing:
    """This process is number `rank` of `size`, counted from 0.

    gather: an object of each process, which can be pickled -> those of all, in the order of their ranks. All
    processes must call it equally often, and all get the same.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[object], list] = _alone

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def part(self, count: int) -> range:
        """Which of `count` things are this process' to do."""
        return range(self.rank, count, self.size)

    def collect(self, own: Mapping[int, Found]) -> list[Found]:
        """What all have found of numbered things, in the order of the numbers."""
        found = {}
        for part in self.gather(own):
            found |= part
        return [found[number] for number in sorted(found)]


ALONE = Sharing()
