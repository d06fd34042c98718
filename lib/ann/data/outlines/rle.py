"""Run-length encoded masks of COCO files: runs of outside and inside by turns, down the columns.

Written out as a list of run lengths, or squeezed into a text: six bits a letter from "0" on, five of them
value, low ones first, the sixth says that more follow; from the fourth run on the difference to the last
but one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ann.data.outlines.masks import CroppedMask, crop_mask


def decode_runs(text: str) -> list[int]:
    """Run lengths of a squeezed text.

    Raises:
        ValueError: the text holds other letters or ends inside of a number.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"Expected letters '0' to 'o', received {letter!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift  # the sign
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("The text ends inside of a number")
    return runs


def runs_from_mask(mask: CroppedMask, height: int, width: int) -> np.ndarray:
    """Run lengths of a mask of an image of (height, width) pixels: the reverse of `mask_from_runs`.

    int64, alternately outside and inside, outside first (0 where the first pixel is inside). Memory is that
    of the mask, not of the image.

    Raises:
        ValueError: the mask reaches out of the image.
    """
    y1, x1, y2, x2 = mask.box
    if y1 < 0 or x1 < 0 or y2 > height or x2 > width:
        raise ValueError(f"Expected a mask inside of {height} x {width} pixels, received the box {mask.box}")
    # a row of outside below each column ends its last run
    columns = np.zeros((x2 - x1, y2 - y1 + 1), dtype=bool)
    columns[:, :-1] = mask.pixels.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=False))
    places = (x1 + changes // (y2 - y1 + 1)) * height + y1 + changes % (y2 - y1 + 1)
    starts, ends = places[::2], places[1::2]
    joined = starts[1:] == ends[:-1]  # a run that goes on at the top of the next column
    starts = starts[np.append(True, ~joined)]
    ends = ends[np.append(~joined, True)]
    edges = np.stack([starts, ends], axis=1).ravel()
    runs = np.diff(edges, prepend=0, append=height * width)
    return runs if runs[-1] else runs[:-1]


def mask_from_runs(runs: Sequence[int], height: int, width: int) -> CroppedMask | None:
    """The mask of run lengths, first outside, then inside and so on; None where nothing is inside.

    Memory is that of the columns between the first and the last inside.

    Raises:
        ValueError: a run is negative, or they don't add up to the image.
    """
    lengths = np.asarray(runs, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"Expected runs that add up to {height} x {width} pixels, received {lengths.sum()}")
    ends = np.cumsum(lengths)
    starts, ends = (ends - lengths)[1::2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return None
    first, last = starts[0] // height, (ends[-1] - 1) // height
    changes = np.zeros((last - first + 1) * height + 1, dtype=np.int8)
    changes[starts - first * height] += 1
    changes[ends - first * height] -= 1
    columns = np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(-1, height)
    return crop_mask(columns.T, 0, int(first))
