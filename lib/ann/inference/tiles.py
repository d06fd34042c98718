"""Cut a scene into overlapping tiles of one size."""

from __future__ import annotations

from dataclasses import dataclass

from ann.data.pixels.windows import Window

# What a tile shows of its scene: all of one size, less only where the scene is smaller (the rest is padding).
Tile = Window


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """All tiles of a scene: one at each pair of a row start and a column start.

    Two tiles next to each other share at least `overlap` >= 1 pixels, so that any two pixels that touch at
    an edge lie together in some tile; merging relies on it.
    """

    scene_height: int
    scene_width: int
    tile_height: int  # as shown by `Tile`: not above the scene's
    tile_width: int
    row_starts: tuple[int, ...]
    column_starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.row_starts) * len(self.column_starts)

    def row(self, index: int) -> tuple[Tile, ...]:
        """The tiles of one row, from left to right."""
        return tuple(
            Tile(row=self.row_starts[index], column=column, height=self.tile_height, width=self.tile_width)
            for column in self.column_starts
        )

    def next_start(self, index: int) -> int:
        """The first scene row that tiles after tile row `index` show; the scene's height after the last."""
        return self.row_starts[index + 1] if index + 1 < len(self.row_starts) else self.scene_height


def cut_tiles(scene_height: int, scene_width: int, tile_shape: tuple[int, int], overlap: int) -> TileGrid:
    """Cover a scene with tiles of `tile_shape` (height, width) that share `overlap` pixels with the next.

    The last row and column are moved back inside (they overlap more); a side of the scene that is shorter
    than the tile's gets one tile, to be padded.

    Raises:
        ValueError: empty scene or tile, or an overlap below 1 or not below the tile's sides.
    """
    if min(scene_height, scene_width, *tile_shape) < 1:
        raise ValueError(
            f"Expected sides of at least 1 pixel, received a scene of {scene_height} x {scene_width} and "
            f"tiles of {tile_shape[0]} x {tile_shape[1]}"
        )
    if not 1 <= overlap < min(tile_shape):
        raise ValueError(
            f"Expected an overlap of 1 to {min(tile_shape) - 1} pixels (less than a tile of "
            f"{tile_shape[0]} x {tile_shape[1]}), received {overlap}"
        )
    return TileGrid(
        scene_height=scene_height,
        scene_width=scene_width,
        tile_height=min(tile_shape[0], scene_height),
        tile_width=min(tile_shape[1], scene_width),
        row_starts=_starts(scene_height, tile_shape[0], overlap),
        column_starts=_starts(scene_width, tile_shape[1], overlap),
    )


def _starts(length: int, side: int, overlap: int) -> tuple[int, ...]:
    if length <= side:
        return (0,)
    last = length - side
    return (*range(0, last, side - overlap), last)
