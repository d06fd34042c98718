"""The objects of scenes that overlap or touch, as rows of the attribute table and as cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ann.grass.bands import CELL_NULL
from ann.grass.instances import InstanceTable
from ann.grass.raster_output import RasterWriter, read_rows
from ann.grass.region import Grid, cell_area, use_grid
from maskrcnn.instances.seams import MergedInstance, PixelGrid, SharedInstance
from maskrcnn.instances.shapes import Shape, draw, move

if TYPE_CHECKING:
    from ann.grass.sources import Source

ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundScene:
    """What was found in a scene, while its neighbours are not through.

    table: its categories are those of `instances`, the temporary instance map (None where only points are
    asked for). Of a scene without neighbours they are final; else they count from 1, and `shared` are the
    objects that other scenes may show too.
    """

    source: Source
    grid: Grid
    table: InstanceTable
    shared: tuple[SharedInstance, ...]
    instances: str | None
    tiles: int
    seconds: float
    seconds_network: float
    tiles_skipped: int


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberedScene:
    """A scene of a group after merging.

    by_local_id: (n + 1,) int32, final category of each object that only this scene shows, 0 for the others.
    only_here: their rows; best_rows: those of the merged objects that this scene shows best, which count as
    found in it. merged: rows of all merged objects of the group. best: (category, pixels of `best_grid`).
    """

    by_local_id: np.ndarray
    only_here: InstanceTable
    best_rows: InstanceTable
    merged: InstanceTable
    best: tuple[tuple[int, Shape], ...]
    best_grid: Grid

    @property
    def rows(self) -> InstanceTable:
        """Rows of all objects that count as found in this scene, by category."""
        both = self.only_here.joined(self.best_rows)
        return both.part(np.argsort(np.asarray(both.categories), kind="stable").tolist())

    def category_of(self, index: int) -> int:
        """Category of a merged object of the group."""
        return self.merged.categories[index]


def number_group(
    found: Mapping[int, FoundScene], objects: Sequence[MergedInstance], pixels: PixelGrid, first: int
) -> dict[int, NumberedScene]:
    """Give the objects of a group their categories from `first` on: scene by scene, in reading order.

    pixels: those that the merged objects are in.
    """
    index_of = {(one.scene, one.id): index for index, one in enumerate(objects)}
    categories = np.zeros(len(objects), np.int32)
    by_local_id, kept = {}, {}
    for number, scene in found.items():
        shared = {one.id for one in scene.shared}
        table = np.zeros(len(scene.table) + 1, np.int32)
        kept[number] = []
        for local in range(1, len(table)):
            if (number, local) in index_of:
                categories[index_of[number, local]] = first
            elif local not in shared:
                table[local] = first
                kept[number].append(local - 1)
            else:
                continue
            first += 1
        by_local_id[number] = table
    merged = InstanceTable()
    for one, category in zip(objects, categories.tolist(), strict=True):
        scene = found[one.scene]
        grid = _grid_around(pixels, one.shape.box)
        row, column = one.point[0] - one.shape.box[0], one.point[1] - one.shape.box[1]
        x, y = grid.coordinates(row, column)
        merged.add(
            category=category,
            class_id=one.class_id,
            score=one.score,
            area=one.shape.area * cell_area(grid, row),
            source=scene.source.name,
            x=x,
            y=y,
            votes=scene.table.votes[one.id - 1],
            spread=scene.table.spreads[one.id - 1],
        )
    best: dict[int, list[int]] = {number: [] for number in found}
    for index, one in enumerate(objects):
        best[one.scene].append(index)
    result = {}
    for number, scene in found.items():
        only_here = scene.table.part(kept[number])
        for index, local in enumerate(kept[number]):
            only_here.categories[index] = int(by_local_id[number][local + 1])
        boxes = np.array([objects[index].shape.box for index in best[number]]).reshape(-1, 4)
        frame = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)) if len(boxes) else (0, 0, 1, 1)
        top, left, bottom, right = (int(value) for value in frame)
        result[number] = NumberedScene(
            by_local_id=by_local_id[number],
            only_here=only_here,
            best_rows=merged.part(best[number]),
            merged=merged,
            best=tuple(
                (int(categories[index]), move(objects[index].shape, -top, -left)) for index in best[number]
            ),
            best_grid=_grid_around(pixels, (top, left, bottom, right)),
        )
    return result


def _grid_around(pixels: PixelGrid, box: Sequence[int]) -> Grid:
    """The cells of a box (y1, x1, y2, x2), pixels of a group."""
    y1, x1, y2, x2 = box
    return Grid(
        north=pixels.north - y1 * pixels.row_size,
        west=pixels.west + x1 * pixels.column_size,
        rows=y2 - y1,
        columns=x2 - x1,
        row_size=pixels.row_size,
        column_size=pixels.column_size,
    )


def write_merged(
    target: str,
    grid: Grid,
    objects: Sequence[tuple[int, Shape]],
    source: str | None = None,
    by_category: np.ndarray | None = None,
) -> None:
    """Write `target` with objects that several scenes were merged to: (category, pixels of the grid).

    source, by_category: the other objects, of the instance map `source`, under the categories that they get,
    (categories + 1,) int32, 0: left out. No map may be open. Memory is that of the shapes.
    """
    use_grid(grid)
    coming = sorted(objects, key=lambda one: one[1].box[0], reverse=True)
    standing: list[tuple[int, Shape]] = []
    with RasterWriter(target, grid) as writer:
        rows = read_rows(source, grid) if source is not None else None
        for start in range(0, grid.rows, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, grid.rows)
            values = np.zeros((end - start, grid.columns), np.int32)
            if rows is not None and by_category is not None:
                cells = np.stack([next(rows) for _ in range(start, end)])
                values = by_category[np.where(cells == CELL_NULL, 0, cells)]
            while coming and coming[-1][1].box[0] < end:
                standing.append(coming.pop())
            standing = [one for one in standing if one[1].box[2] > start]
            box = (start, 0, end, grid.columns)
            for category, shape in standing:
                for piece in shape.touching(box):
                    draw(values, box, piece, category)
            writer.write(np.where(values > 0, values, CELL_NULL))
        if rows is not None:
            rows.close()
