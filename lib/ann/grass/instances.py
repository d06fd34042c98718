"""What is known of each instance besides its cells: the rows of the attribute table."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

COLUMNS = ("categories", "class_ids", "scores", "areas", "x", "y", "votes", "spreads")


@dataclass
class InstanceTable:
    """Columns of all instances so far, in the order they were added; 47 bytes per instance.

    Categories run through all scenes from 1, so that instances of several scenes share maps.
    """

    categories: array = field(default_factory=lambda: array("i"))
    class_ids: array = field(default_factory=lambda: array("h"))
    scores: array = field(default_factory=lambda: array("f"))
    areas: array = field(default_factory=lambda: array("d"))  # map units squared
    sources: array = field(default_factory=lambda: array("i"))  # numbers as in source_numbers
    x: array = field(default_factory=lambda: array("d"))  # coordinates of a point inside
    y: array = field(default_factory=lambda: array("d"))
    votes: array = field(default_factory=lambda: array("b"))  # of the turns of a tile, 0: not asked for
    spreads: array = field(default_factory=lambda: array("f"))  # of the scores of the turns
    source_numbers: dict[str, int] = field(default_factory=dict)  # by name, from 0 in their order

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def last_category(self) -> int:
        """The highest category so far, 0 without any."""
        return max(self.categories, default=0)

    def add(
        self,
        *,
        category: int,
        class_id: int,
        score: float,
        area: float,
        source: str,
        x: float,
        y: float,
        votes: int = 0,
        spread: float = 0.0,
    ) -> None:
        """Append an instance."""
        self.categories.append(category)
        self.class_ids.append(class_id)
        self.scores.append(score)
        self.areas.append(area)
        self.sources.append(self._source_number(source))
        self.x.append(x)
        self.y.append(y)
        self.votes.append(votes)
        self.spreads.append(spread)

    def _source_number(self, name: str) -> int:
        return self.source_numbers.setdefault(name, len(self.source_numbers))

    def of_class(self, class_id: int) -> np.ndarray:
        """Indices of the instances of a class."""
        return np.flatnonzero(np.asarray(self.class_ids, dtype=np.int16) == class_id)

    def classes_by_category(self) -> np.ndarray:
        """(last_category + 1,) int32: class of each category, 0 where there is none."""
        classes = np.zeros(self.last_category + 1, np.int32)
        classes[np.asarray(self.categories, dtype=np.int64)] = np.asarray(self.class_ids, dtype=np.int32)
        return classes

    def scores_by_category(self) -> np.ndarray:
        """(last_category + 1,) float32: score of each category, NaN where there is none."""
        scores = np.full(self.last_category + 1, np.nan, np.float32)
        scores[np.asarray(self.categories, dtype=np.int64)] = np.asarray(self.scores, dtype=np.float32)
        return scores

    def part(self, indices: Sequence[int]) -> InstanceTable:
        """Some of the instances, in this order."""
        result = InstanceTable(source_numbers=dict(self.source_numbers))
        for column in ("sources", *COLUMNS):
            values = getattr(self, column)
            getattr(result, column).extend(values[index] for index in indices)
        return result

    def joined(self, other: InstanceTable) -> InstanceTable:
        """The instances of both tables."""
        result = self.part(range(len(self)))
        result.extend(other)
        return result

    def extend(self, other: InstanceTable) -> None:
        """Append the instances of `other`."""
        numbers = [self._source_number(name) for name in other.source_numbers]
        self.sources.extend(numbers[source] for source in other.sources)
        for column in COLUMNS:
            getattr(self, column).extend(getattr(other, column))
