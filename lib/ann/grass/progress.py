"""Progress over several scenes, as the modules show it."""

from __future__ import annotations

import grass.script as gs

from ann.grass.sources import Source


class Percent:
    """gs.percent, called only when the percentage changes: each call starts a process."""

    def __init__(self):
        self._percent = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if percent != self._percent:
            self._percent = percent
            gs.percent(percent, 100, 1)


class ProgressDisplay:
    """gs.percent over all tiles of all scenes, and how long it will take."""

    def __init__(self, scene_count: int, verb: str = "Detecting"):
        self._scene_count, self._verb = scene_count, verb
        self._number = 0
        self._percent = -1

    def begin(self, number: int, source: Source) -> None:
        self._number = number
        size = f"{source.grid.rows} x {source.grid.columns} cells"
        gs.message(f"{self._verb} in {source.name} ({number + 1} of {self._scene_count}, {size})...")

    def report(self, progress) -> None:
        part = progress.tiles_done / max(progress.tiles_total, 1)
        percent = int(100 * (self._number + part) / self._scene_count)
        if percent != self._percent:
            self._percent = percent
            gs.percent(percent, 100, 1)

    def end(self) -> None:
        gs.percent(100, 100, 1)
