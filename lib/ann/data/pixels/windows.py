"""Windows: axis-parallel parts of an image, in its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of an image: rows `row` to `row + height`, columns `column` to `column + width`, ends
    exclusive.
    """

    row: int
    column: int
    height: int
    width: int

    def __post_init__(self):
        if self.height <= 0 or self.width <= 0:
            raise ValueError(f"Expected a window of at least one pixel, received {self}")

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(y1, x1, y2, x2), pixels of the image, ends exclusive."""
        return self.row, self.column, self.row + self.height, self.column + self.width


def whole(height: int, width: int) -> Window:
    """The window that covers an image of this size."""
    return Window(row=0, column=0, height=height, width=width)


def grid_windows(height: int, width: int, window_height: int, window_width: int) -> Iterator[Window]:
    """Windows that cover an image, row by row; the last of a row or column is moved back inside.

    An image smaller than a window gives one window of the size of the image, on the side where it is smaller.
    """
    window_height, window_width = min(window_height, height), min(window_width, width)
    for row in _starts(height, window_height):
        for column in _starts(width, window_width):
            yield Window(row=row, column=column, height=window_height, width=window_width)


def _starts(length: int, step: int) -> list[int]:
    return [min(start, length - step) for start in range(0, length, step)]
