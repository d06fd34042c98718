"""Label scenes for tests of detection, and finders that know what is in them.

A label scene is (H, W) int32: 0 nothing, otherwise the number of an object. Objects hang together over edges.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import TileBatch
from maskrcnn.instances.instances import Instance
from maskrcnn.instances.pipeline import Block, DetectionSettings, find_in_scene


def separate_parts(labels: np.ndarray) -> np.ndarray:
    """The same scene with each part that hangs together over edges as an object of its own."""
    result = np.zeros_like(labels)
    count = 0
    for value in np.unique(labels[labels > 0]):
        parts, found = ndimage.label(labels == value)
        result[parts > 0] = parts[parts > 0] + count
        count += found
    return result


def in_reading_order(labels: np.ndarray) -> np.ndarray:
    """The same scene with objects numbered from 1 in the order of their first pixels."""
    values, first = np.unique(labels, return_index=True)
    order = [value for value, _ in sorted(zip(values, first, strict=True), key=lambda pair: pair[1]) if value]
    table = np.zeros(labels.max() + 1, dtype=np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[labels]


def perfect_finder(labels: np.ndarray, classes=None, scores=None):
    """Finds in each tile the exact visible pixels of each object, as one instance even in pieces."""

    def find(batch: TileBatch) -> list[list[Instance]]:
        found = []
        for tile in batch.tiles:
            y1, x1, y2, x2 = tile.box
            view = labels[y1:y2, x1:x2]
            found.append(
                [
                    Instance(
                        mask=crop_mask(view == value, y1, x1),
                        class_id=1 if classes is None else classes[value],
                        score=0.9 if scores is None else scores[value],
                    )
                    for value in np.unique(view[view > 0]).tolist()
                ]
            )
        return found

    return find


def settings(**changes) -> DetectionSettings:
    values = {"band_mean": (0.0,), "band_scale": (1.0,), "tile_shape": (16, 16), "overlap": 4}
    return DetectionSettings(**(values | changes))


def run(labels: np.ndarray, finder, valid: np.ndarray | None = None, **changes) -> tuple[np.ndarray, list]:
    """Detect in a scene of this size; the joined instance ids and all instances."""
    pixels = np.ones((*labels.shape, 1), dtype=np.uint8)
    return join_blocks(find_in_scene(ArrayScene(pixels, valid), finder, settings(**changes)), labels.shape)


def join_blocks(blocks, shape: tuple[int, int]) -> tuple[np.ndarray, list]:
    """All rows of a run, checked to come in order and once, and all its instances."""
    parts, instances, row = [], [], 0
    for block in blocks:
        assert isinstance(block, Block) and block.row == row and block.instance_ids.dtype == np.int32
        for instance in block.instances:
            begins = np.flatnonzero((block.instance_ids == instance.id).any(axis=1))
            assert begins.size, "an instance comes with the block that shows its first row"
        row += len(block.instance_ids)
        parts.append(block.instance_ids)
        instances.extend(block.instances)
    ids = np.concatenate(parts)
    assert ids.shape == shape
    return ids, instances


def instance(
    pixels: np.ndarray, row: int = 0, column: int = 0, class_id: int = 1, score: float = 0.9
) -> Instance:
    """An instance from a small array."""
    mask = crop_mask(np.asarray(pixels, dtype=bool), row, column)
    assert isinstance(mask, CroppedMask)
    return Instance(mask=mask, class_id=class_id, score=score)
