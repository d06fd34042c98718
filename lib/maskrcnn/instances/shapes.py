"""Sets of pixels of any extent, kept packed: an object that spans a scene costs bits, and only where it is.

A `Shape` is a tuple of pieces that don't overlap: one for everything of ordinary size, one per chunk of
CHUNK x CHUNK pixels for an object larger than SINGLE_PIECE. No function unpacks more than two pieces at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ann.data.outlines.masks import CroppedMask, common_box, crop_mask, part_inside

CHUNK = 512  # pixels; side of the pieces of a large shape
SINGLE_PIECE = 1024 * 1024  # pixels of the box up to which a shape stays in one piece
EDGES = ndimage.generate_binary_structure(2, 1)  # pixels touch over edges, not corners

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A CroppedMask with eight pixels per byte. box: (y1, x1, y2, x2), scene pixels."""

    box: Box
    bits: np.ndarray  # (ceil(height * width / 8),) uint8

    @classmethod
    def of(cls, mask: CroppedMask) -> PackedMask:
        """Pack a mask."""
        return cls(mask.box, np.packbits(mask.pixels, axis=None))

    def unpack(self) -> CroppedMask:
        """The mask with one byte per pixel."""
        y1, x1, y2, x2 = self.box
        pixels = np.unpackbits(self.bits, count=(y2 - y1) * (x2 - x1)).view(bool)
        return CroppedMask(row=y1, column=x1, pixels=pixels.reshape(y2 - y1, x2 - x1))


@dataclass(frozen=True, eq=False)
class Shape:
    """Pixels of the scene. pieces: not empty, without common pixels; area: number of pixels."""

    pieces: tuple[PackedMask, ...]
    boxes: np.ndarray  # (pieces, 4) int64
    area: int

    @property
    def box(self) -> Box:
        """(y1, x1, y2, x2), scene pixels, ends exclusive."""
        if len(self.pieces) == 1:
            return self.pieces[0].box
        top, left = self.boxes[:, :2].min(axis=0)
        bottom, right = self.boxes[:, 2:].max(axis=0)
        return int(top), int(left), int(bottom), int(right)

    def __iter__(self) -> Iterator[CroppedMask]:
        """The pieces, unpacked one by one."""
        return (piece.unpack() for piece in self.pieces)

    def touching(self, box: Sequence[int]) -> Iterator[CroppedMask]:
        """The pieces whose boxes share pixels with `box`, unpacked one by one."""
        if len(self.pieces) == 1:
            if common_box(self.pieces[0].box, box):
                yield self.pieces[0].unpack()
            return
        y1, x1, y2, x2 = box
        boxes = self.boxes
        hits = (boxes[:, 0] < y2) & (boxes[:, 2] > y1) & (boxes[:, 1] < x2) & (boxes[:, 3] > x1)
        for index in np.flatnonzero(hits):
            yield self.pieces[index].unpack()


def make_shape(masks: Iterable[CroppedMask]) -> Shape | None:
    """A shape of masks that have no common pixels; None of no mask."""
    pieces, area = [], 0
    for mask in masks:
        pieces.append(PackedMask.of(mask))
        area += mask.area
    if not pieces:
        return None
    return Shape(tuple(pieces), np.array([piece.box for piece in pieces], dtype=np.int64), area)


def move(shape: Shape, rows: int, columns: int) -> Shape:
    """The shape so many pixels further down and to the right."""
    by = np.array([rows, columns, rows, columns])
    pieces = tuple(
        PackedMask((y1 + rows, x1 + columns, y2 + rows, x2 + columns), piece.bits)
        for piece in shape.pieces
        for y1, x1, y2, x2 in (piece.box,)
    )
    return Shape(pieces, shape.boxes + by, shape.area)


def unite(masks: Sequence[PackedMask]) -> Shape:
    """All pixels that at least one of the masks covers."""
    if len(masks) == 1:
        shape = make_shape([masks[0].unpack()])
        assert shape is not None
        return shape
    boxes = np.array([mask.box for mask in masks])
    top, left = (int(value) for value in boxes[:, :2].min(axis=0))
    bottom, right = (int(value) for value in boxes[:, 2:].max(axis=0))
    if (bottom - top) * (right - left) <= SINGLE_PIECE:
        chunks = {(top, left, bottom, right): list(range(len(masks)))}
    else:
        chunks = defaultdict(list)
        for index, (y1, x1, y2, x2) in enumerate(boxes.tolist()):
            for row in range(y1 // CHUNK * CHUNK, y2, CHUNK):
                for column in range(x1 // CHUNK * CHUNK, x2, CHUNK):
                    chunks[row, column, row + CHUNK, column + CHUNK].append(index)
    shape = make_shape(_united_chunks(masks, chunks))
    assert shape is not None, "masks are never empty"
    return shape


def _united_chunks(masks: Sequence[PackedMask], chunks: dict[Box, list[int]]) -> Iterator[CroppedMask]:
    for box, indices in sorted(chunks.items()):
        canvas = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=bool)
        for index in indices:
            draw(canvas, box, masks[index].unpack(), True)
        piece = crop_mask(canvas, box[0], box[1])
        if piece is not None:
            yield piece


def subtract(shape: Shape, others: Sequence[Shape]) -> Shape | None:
    """The pixels of a shape that none of the others covers; None where nothing is left."""

    def left_over() -> Iterator[CroppedMask]:
        for packed in shape.pieces:
            piece = packed.unpack()
            pixels = piece.pixels.copy()
            for other in others:
                for part in other.touching(packed.box):
                    draw(pixels, packed.box, part, False)
            rest = crop_mask(pixels, piece.row, piece.column)
            if rest is not None:
                yield rest

    return make_shape(left_over())


def largest_part(shape: Shape) -> Shape:
    """The largest part that hangs together over pixel edges; of equal ones the first by row, column."""
    if len(shape.pieces) == 1:
        mask = shape.pieces[0].unpack()
        labels, count = ndimage.label(mask.pixels, EDGES)
        if count == 1:
            return shape
        sizes = np.bincount(labels.ravel())[1:]  # labels count up in reading order, argmax takes the first
        part = make_shape(filter(None, [crop_mask(labels == 1 + np.argmax(sizes), mask.row, mask.column)]))
    else:
        part = _largest_part_of_many(shape)
    assert part is not None, "a shape is never empty"
    return part


def _largest_part_of_many(shape: Shape) -> Shape | None:
    """Label each piece alone, then join labels that touch over the edges of two pieces."""
    parents: list[int] = []
    sizes: list[int] = []
    firsts: list[tuple[int, int]] = []  # the first pixel of each label, (row, column)
    offsets = []
    for packed in shape.pieces:
        piece = packed.unpack()
        labels, count = ndimage.label(piece.pixels, EDGES)
        offsets.append(len(parents))
        flat = labels.ravel()
        found, positions = np.unique(flat, return_index=True)
        for label, position in zip(found.tolist(), positions.tolist(), strict=True):
            if label:
                row, column = divmod(position, labels.shape[1])
                firsts.append((piece.row + row, piece.column + column))
        sizes.extend(np.bincount(flat, minlength=count + 1)[1:].tolist())
        parents.extend(range(len(parents), len(parents) + count))

    for first, second in _touching_pieces(shape.boxes):
        for one, two in _touching_labels(shape.pieces[first], shape.pieces[second]):
            join(parents, offsets[first] + one - 1, offsets[second] + two - 1)
    totals: dict[int, int] = defaultdict(int)
    starts: dict[int, tuple[int, int]] = {}
    for label, size in enumerate(sizes):
        root = find(parents, label)
        totals[root] += size
        starts[root] = min(starts.get(root, firsts[label]), firsts[label])
    best = min(totals, key=lambda root: (-totals[root], starts[root]))

    def kept() -> Iterator[CroppedMask]:
        for packed, offset in zip(shape.pieces, offsets, strict=True):
            piece = packed.unpack()
            labels, count = ndimage.label(piece.pixels, EDGES)
            wanted = np.array([False, *(find(parents, offset + label) == best for label in range(count))])
            part = crop_mask(wanted[labels], piece.row, piece.column)
            if part is not None:
                yield part

    return make_shape(kept())


def _touching_pieces(boxes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of pieces whose boxes share an edge or more, through buckets of chunk size."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (y1, x1, y2, x2) in enumerate(boxes.tolist()):
        for row in range((y1 - 1) // CHUNK, y2 // CHUNK + 1):
            for column in range((x1 - 1) // CHUNK, x2 // CHUNK + 1):
                buckets[row, column].append(index)
    pairs = {
        (first, second)
        for members in buckets.values()
        for place, first in enumerate(members)
        for second in members[place + 1 :]
        if common_box(boxes[first] + (-1, -1, 1, 1), boxes[second])
    }
    return iter(sorted(pairs))


def _touching_labels(first: PackedMask, second: PackedMask) -> set[tuple[int, int]]:
    """Pairs of labels (from 1, as `ndimage.label` counts) that touch over pixel edges of two pieces."""
    common = common_box(tuple(np.add(first.box, (-1, -1, 1, 1))), tuple(np.add(second.box, (-1, -1, 1, 1))))
    if common is None:
        return set()
    canvases = []
    for packed in (first, second):
        piece = packed.unpack()
        labels, _ = ndimage.label(piece.pixels, EDGES)
        canvas = np.zeros((common[2] - common[0], common[3] - common[1]), dtype=labels.dtype)
        to, come = _slices(common, packed.box)
        canvas[to] = labels[come]
        canvases.append(canvas)
    one, two = canvases
    found: set[tuple[int, int]] = set()
    for a, b in (
        (one[1:], two[:-1]),
        (one[:-1], two[1:]),
        (one[:, 1:], two[:, :-1]),
        (one[:, :-1], two[:, 1:]),
    ):
        both = (a > 0) & (b > 0)
        found.update(zip(a[both].tolist(), b[both].tolist(), strict=True))
    return found


def middle_point(shape: Shape) -> tuple[int, int]:
    """The pixel (row, column) of the shape that is nearest to its centroid; of equal ones the first."""
    rows = columns = 0
    for packed in shape.pieces:
        pixels = packed.unpack().pixels
        per_row, per_column = np.count_nonzero(pixels, axis=1), np.count_nonzero(pixels, axis=0)
        rows += int(per_row @ np.arange(packed.box[0], packed.box[2]))
        columns += int(per_column @ np.arange(packed.box[1], packed.box[3]))
    middle_row, middle_column = rows / shape.area, columns / shape.area
    best: tuple[float, int, int] | None = None
    for packed in shape.pieces:
        y1, x1, y2, x2 = packed.box
        distances = np.add.outer(
            (np.arange(y1, y2) - middle_row) ** 2, (np.arange(x1, x2) - middle_column) ** 2
        )
        distances[~packed.unpack().pixels] = np.inf
        row, column = divmod(int(np.argmin(distances)), x2 - x1)  # the first of equal ones, in reading order
        candidate = (float(distances[row, column]), y1 + row, x1 + column)
        best = candidate if best is None else min(best, candidate)
    assert best is not None, "a shape is never empty"
    return best[1], best[2]


def first_pixel(shape: Shape) -> tuple[int, int]:
    """The pixel (row, column) of the shape that comes first in reading order."""
    top = int(shape.boxes[:, 0].min())
    return top, min(
        int(packed.box[1] + np.argmax(packed.unpack().pixels[0]))
        for packed in shape.pieces
        if packed.box[0] == top
    )


def draw(canvas: np.ndarray, box: Sequence[int], mask: CroppedMask, value) -> None:
    """Set the pixels of a mask in an array that shows `box` of the scene; what lies outside is left out."""
    if common_box(box, mask.box):
        to, come = _slices(box, mask.box)
        canvas[to][mask.pixels[come]] = value


def count_common(first: Iterable[CroppedMask], second: Iterable[CroppedMask]) -> int:
    """Number of pixels that two sets of pixels share, each given as its pieces (a `Shape` or a tuple)."""
    count = 0
    for one in first:
        for two in second.touching(one.box) if isinstance(second, Shape) else second:
            common = common_box(one.box, two.box)
            if common:
                count += int(np.count_nonzero(part_inside(one, common) & part_inside(two, common)))
    return count


def count_inside(pieces: Iterable[CroppedMask], box: Sequence[int]) -> int:
    """Number of pixels inside of a box."""
    count = 0
    for mask in pieces.touching(box) if isinstance(pieces, Shape) else pieces:
        common = common_box(mask.box, box)
        if common:
            count += int(np.count_nonzero(part_inside(mask, common)))
    return count


def find(parents: list[int] | dict[int, int], item: int) -> int:
    """The representative of an item's set; paths are halved on the way."""
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


def join(parents: list[int] | dict[int, int], one: int, two: int) -> None:
    """Unite the sets of two items; the lower representative stays."""
    one, two = find(parents, one), find(parents, two)
    parents[max(one, two)] = min(one, two)


def _slices(to: Sequence[int], come: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The common part of two boxes that share pixels, as slices of an array that shows each."""
    y1, x1, y2, x2 = max(to[0], come[0]), max(to[1], come[1]), min(to[2], come[2]), min(to[3], come[3])
    return (
        np.s_[y1 - to[0] : y2 - to[0], x1 - to[1] : x2 - to[1]],
        np.s_[y1 - come[0] : y2 - come[0], x1 - come[1] : x2 - come[1]],
    )
