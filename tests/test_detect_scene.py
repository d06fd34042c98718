"""A perfect detector's objects come out exactly, whatever the tiles; a real one's once each."""

from __future__ import annotations

import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from ann.data.outlines.masks import crop_mask, paste
from ann.errors import SceneError
from ann.inference.scene import ArrayScene
from drawn_scenes import (
    in_reading_order,
    instance,
    join_blocks,
    perfect_finder,
    run,
    separate_parts,
    settings,
)
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.instances import Instance, box_mask
from maskrcnn.instances.pipeline import DetectionSettings, detect_scene, find_by_workers, find_in_scene

BOUNDED = hypothesis_settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def label_scenes(draw):
    """Rectangles, L and U shapes, rings and specks, over and beside one another, at any offset."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    labels = np.zeros((height, width), dtype=np.int32)
    for value in range(1, draw(st.integers(0, 12)) + 1):
        h = draw(st.integers(1, draw(st.sampled_from([1, 4, 12, 60]))))
        w = draw(st.integers(1, draw(st.sampled_from([1, 4, 12, 60]))))
        y, x = draw(st.integers(-h // 2, height - 1)), draw(st.integers(-w // 2, width - 1))
        shape = np.ones((h, w), dtype=bool)
        kind = draw(st.sampled_from(["rectangle", "L", "ring", "U"]))
        if kind == "L":
            shape[: h // 2, : w // 2] = False
        elif kind == "ring":
            shape[1 : h - 1, 1 : w - 1] = False
        elif kind == "U":  # falls into two pieces in a tile that does not show its lower side
            shape[: h - 1, w // 3 : w - w // 3] = False
        mask = crop_mask(shape, y, x)
        if mask is not None:
            top, left = max(0, -y), max(0, -x)
            window = labels[max(0, y) : y + h, max(0, x) : x + w]
            window[shape[top : top + window.shape[0], left : left + window.shape[1]]] = value
    return in_reading_order(separate_parts(labels))


@st.composite
def tilings(draw):
    tile_shape = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    return {
        "tile_shape": tile_shape,
        "overlap": draw(st.integers(1, min(tile_shape) - 1)),
        "batch_size": draw(st.integers(1, 5)),
        "block_rows": draw(st.integers(1, 30)),
    }


@seed(4)
@BOUNDED
@given(label_scenes(), tilings(), st.integers(0, 2**32 - 1))
def test_a_perfect_detector_gives_exactly_the_drawn_objects_for_any_tiles(labels, tiling, chance):
    rng = np.random.default_rng(chance)
    count = labels.max() + 1
    classes = rng.integers(1, 4, count).tolist()
    scores = rng.choice([0.7, 0.8, 0.95], count).tolist()
    ids, instances = run(labels, perfect_finder(labels, classes, scores), **tiling)
    np.testing.assert_array_equal(ids, labels)
    assert [one.id for one in instances] == list(range(1, count))
    for one in instances:
        assert one.cells == np.count_nonzero(labels == one.id)
        assert (one.class_id, one.score) == (classes[one.id], scores[one.id])
        assert labels[one.row, one.column] == one.id


@seed(5)
@BOUNDED
@given(label_scenes(), tilings(), st.integers(0, 2**32 - 1))
def test_the_same_where_parts_of_the_scene_have_no_data(labels, tiling, chance):
    rng = np.random.default_rng(chance)
    valid = rng.random(labels.shape) < 0.95
    valid[: rng.integers(0, labels.shape[0] + 1)] = False
    labels = in_reading_order(separate_parts(np.where(valid, labels, 0)))
    ids, _ = run(labels, perfect_finder(labels), valid, **tiling)
    np.testing.assert_array_equal(ids, labels)


def scattered_objects(rng, gap: int, largest: int) -> np.ndarray:
    """Boxes of 8 pixels a side or more, at least `gap` pixels apart."""
    height, width = rng.integers(60, 140, 2)
    labels = np.zeros((height, width), dtype=np.int32)
    for value in range(1, 200):
        h, w = rng.integers(8, largest + 1, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        around = labels[max(0, y - gap) : y + h + gap, max(0, x - gap) : x + w + gap]
        if not around.any():
            labels[y : y + h, x : x + w] = value
    return in_reading_order(labels)


def jittered_finder(labels: np.ndarray, chance: int):
    """A finder that draws each object shifted by up to a pixel in each tile, with another score and class."""
    exact = perfect_finder(labels)

    def find(batch):
        result = []
        for tile, found in zip(batch.tiles, exact(batch), strict=True):
            rng = np.random.default_rng([chance, tile.row, tile.column])
            jittered = []
            for one in found:
                view = np.zeros((tile.height, tile.width), dtype=np.uint8)
                y, x = one.mask.row - tile.row, one.mask.column - tile.column
                view[y : y + one.mask.pixels.shape[0], x : x + one.mask.pixels.shape[1]] = one.mask.pixels
                shifted = ndimage.shift(view, rng.integers(-1, 2, 2), order=0, mode="constant")
                mask = crop_mask(shifted, tile.row, tile.column)
                score, class_id = float(rng.choice([0.7, 0.8, 0.95])), int(rng.integers(1, 3))
                if mask is not None:
                    jittered.append(Instance(mask=mask, class_id=class_id, score=score))
            result.append(jittered)
        return result

    return find


@pytest.mark.parametrize("gap", [0, 4])
@pytest.mark.parametrize("chance", range(12))
def test_with_masks_that_differ_from_tile_to_tile_no_object_is_lost_or_doubled(chance, gap):
    rng = np.random.default_rng(chance)
    labels = scattered_objects(rng, gap, largest=16)
    tile_shape = tuple(int(side) for side in rng.integers(48, 60, 2))
    ids, instances = run(labels, jittered_finder(labels, chance), tile_shape=tile_shape, overlap=24)
    assert len(instances) == labels.max() > 10
    main = [np.bincount(labels[ids == one.id]).argmax() for one in instances]
    assert sorted(main) == list(range(1, labels.max() + 1))


def streets(rng) -> np.ndarray:
    """Rows of terraced houses that touch, 20 to 70 pixels long and 20 to 40 wide; rows lie 8 pixels apart."""
    labels = np.zeros((300, 320), dtype=np.int32)
    value, y = 0, int(rng.integers(0, 10))
    while y + 40 <= labels.shape[0]:
        depth, x = int(rng.integers(20, 41)), int(rng.integers(0, 30))
        while x + 70 <= labels.shape[1]:
            length = int(rng.integers(20, 71))
            value += 1
            labels[y : y + depth, x : x + length] = value
            x += length + int(rng.choice([0, 0, 12]))
        y += depth + 8
    return in_reading_order(labels if rng.random() < 0.5 else np.ascontiguousarray(labels.T))


def realistic_finder(labels: np.ndarray, chance: int, short: int):
    """A finder that draws as a network: 28 x 28 probabilities in a box that is a pixel or two off.

    An object cut by the tile's border ends up to `short` pixels before it; what shows less than 16 pixels
    of itself is overlooked; scores vary.
    """
    corner = np.ones((28, 28), dtype=np.float32)
    corner[[0, 0, -1, -1], [0, -1, 0, -1]] = 0.3
    corner *= 0.9

    def find(batch):
        result = []
        for tile in batch.tiles:
            rng = np.random.default_rng([chance, tile.row, tile.column])
            y1, x1, y2, x2 = tile.box
            view, found = labels[y1:y2, x1:x2], []
            for place in ndimage.find_objects(view):
                if place is None or min(side.stop - side.start for side in place) < 16:
                    continue
                box = np.array([place[0].start, place[1].start, place[0].stop, place[1].stop])
                off = rng.integers(-1, 2, 4)
                edges = (y1, x1, labels.shape[0] - y2, labels.shape[1] - x2)  # 0: the scene ends there too
                cut = (box == [0, 0, tile.height, tile.width]) & (np.array(edges) > 0)
                off[cut] = (rng.integers(0, short + 1, 4) * [1, 1, -1, -1])[cut]
                top, left, bottom, right = np.clip(box + off, 0, [tile.height, tile.width] * 2).tolist()
                mask = crop_mask(box_mask(corner, bottom - top, right - left), y1 + top, x1 + left)
                found.append(Instance(mask=mask, class_id=1, score=float(rng.uniform(0.7, 1))))
            result.append(found)
        return result

    return find


@pytest.mark.parametrize("short", [2, 8, 12])
def test_terraced_houses_drawn_as_a_network_does_stay_apart_and_whole(short):
    houses = pieces = 0
    for chance in range(10):
        labels = streets(np.random.default_rng(chance))
        finder = realistic_finder(labels, chance, short)
        ids, instances = run(labels, finder, tile_shape=(128, 128), overlap=48)
        sizes = np.bincount(labels.ravel())
        seen = set()
        for one in instances:
            inside = np.bincount(labels[ids == one.id], minlength=len(sizes))
            main = int(inside.argmax())
            assert inside[main] > 0.8 * one.cells, "it covers two houses"
            pieces += inside[main] < 0.6 * sizes[main] or main in seen
            seen.add(main)
        assert seen == set(range(1, len(sizes))), "a house is lost"
        houses += len(sizes) - 1
    assert houses > 300
    # A stub that shows little of itself and is drawn much too short agrees with nothing the other tile saw.
    assert pieces <= (0 if short == 2 else 0.015 * houses)


@pytest.mark.parametrize("chance", range(6))
def test_the_result_does_not_depend_on_batch_and_block_size(chance):
    labels = scattered_objects(np.random.default_rng(chance), 0, largest=40)
    finder = jittered_finder(labels, chance)
    ids, instances = run(labels, finder, tile_shape=(20, 27), overlap=6)
    for batch_size, block_rows in [(3, 256), (64, 7), (1, 1)]:
        others, other_instances = run(
            labels, finder, tile_shape=(20, 27), overlap=6, batch_size=batch_size, block_rows=block_rows
        )
        np.testing.assert_array_equal(others, ids)
        assert other_instances == instances


class ThreadWorkers:
    """Several threads that take their time, each time another."""

    def __init__(self, finder, threads, reads_scene=False):
        self.in_flight, self.reads_scene = 2 * threads, reads_scene
        self._finder, self._pool = finder, ThreadPoolExecutor(threads)
        self._under_way, self.most_under_way, self.batches = 0, 0, []
        self._delays = np.random.default_rng(0)

    def submit(self, batch):
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        self.batches.append(batch)
        return self._pool.submit(self._find, batch, float(self._delays.uniform(0, 0.004)))

    def _find(self, batch, delay):
        time.sleep(delay)
        self._under_way -= 1
        return self._finder(batch)


@pytest.mark.parametrize("reads_scene", [False, True])
def test_workers_in_any_order_give_what_one_finder_gives(reads_scene):
    labels = scattered_objects(np.random.default_rng(1), 0, largest=40)
    finder = jittered_finder(labels, 1)
    changes = {"tile_shape": (20, 27), "overlap": 6, "batch_size": 2}
    ids, instances = run(labels, finder, **changes)
    workers = ThreadWorkers(finder, 3, reads_scene)
    scene = ArrayScene(labels[..., None].astype(np.uint8))
    others, other_instances = join_blocks(find_by_workers(scene, workers, settings(**changes)), labels.shape)
    np.testing.assert_array_equal(others, ids)
    assert other_instances == instances
    assert 1 < workers.most_under_way <= workers.in_flight
    assert all(bool(batch.pixels) != reads_scene for batch in workers.batches)


def test_workers_that_read_the_scene_may_say_that_a_tile_has_no_data():
    reports = []
    workers = ThreadWorkers(lambda batch: [None for _ in batch.tiles], 2, reads_scene=True)
    blocks = find_by_workers(ArrayScene(np.zeros((40, 40, 1))), workers, settings(), reports.append)
    assert not join_blocks(blocks, (40, 40))[1]
    assert reports[-1].tiles_skipped == reports[-1].tiles_done == reports[-1].tiles_total == 9


def test_an_error_of_a_worker_is_raised_and_ends_the_reading():
    def fail(batch):
        raise SceneError("the third machine is on fire")

    with pytest.raises(SceneError, match="on fire"):
        list(find_by_workers(ArrayScene(np.ones((90, 90, 1))), ThreadWorkers(fail, 2), settings()))
    assert not reader_threads()


def test_a_scene_without_any_object_gives_empty_rows():
    ids, instances = run(np.zeros((50, 30), np.int32), lambda batch: [[] for _ in batch.tiles])
    assert not ids.any() and instances == []


def test_tiles_without_data_are_skipped_and_a_scene_without_data_never_asks_the_detector():
    valid = np.ones((16, 40), dtype=bool)
    valid[:, 12:28] = False  # the middle one of the tiles at columns 0, 12 and 24
    asked = []

    def find(batch):
        asked.extend(tile.column for tile in batch.tiles)
        return [[] for _ in batch.tiles]

    run(np.zeros((16, 40), np.int32), find, valid)
    assert asked == [0, 24]
    asked.clear()
    ids, instances = run(np.zeros((16, 40), np.int32), find, np.zeros((16, 40), dtype=bool))
    assert asked == [] and not ids.any() and instances == []


class SquareDetector:
    """Takes part in place of the network: one box around the bright pixels of each image."""

    def __init__(self):
        self.images, self.windows = [], []

    def __call__(self, images, windows):
        self.images.append(images.copy())
        self.windows.append(windows.copy())
        return [Found(image[..., 0] > 50) for image in images]


class Found:
    def __init__(self, bright):
        mask = crop_mask(bright)
        count = 0 if mask is None else 1
        self.boxes = np.array([mask.box] if count else [], dtype=np.int32).reshape(-1, 4)
        self.class_ids = np.full(count, 2, dtype=np.int32)
        self.scores = np.full(count, 0.75, dtype=np.float32)
        self.masks = np.ones((count, 28, 28), dtype=np.float32)


def test_images_are_padded_with_raw_zeros_then_scaled_and_batches_keep_their_shape():
    pixels = np.full((10, 40, 2), 100, dtype=np.uint16)
    valid = np.ones((10, 40), dtype=bool)
    valid[0, 0] = False
    detector = SquareDetector()
    changes = {"band_mean": (10.0, 20.0), "band_scale": (2.0, 4.0), "batch_size": 2}
    list(detect_scene(ArrayScene(pixels, valid), detector, settings(**changes)))
    assert [images.shape for images in detector.images] == [
        (2, 16, 16, 2)
    ] * 2  # three tiles and a free place
    image = detector.images[0][0]
    assert image.dtype == np.float32
    assert image[1, 1].tolist() == [45.0, 20.0]
    assert image[0, 0].tolist() == image[12, 0].tolist() == [-5.0, -5.0]  # no data; padding
    assert detector.windows[0].tolist() == [[0, 0, 10, 16]] * 2


def test_the_networks_boxes_become_instances_of_the_scene():
    pixels = np.zeros((60, 60, 1), dtype=np.uint8)
    pixels[20:30, 10:50] = 200
    blocks = detect_scene(ArrayScene(pixels), SquareDetector(), settings(tile_shape=(32, 32), overlap=8))
    ids, instances = join_blocks(blocks, (60, 60))
    assert len(instances) == 1
    assert (instances[0].class_id, instances[0].score) == (2, 0.75)
    np.testing.assert_array_equal(ids > 0, pixels[..., 0] > 0)


def test_settings_follow_the_model_and_can_be_changed():
    config = MaskRCNNConfig(classes=("tree",), image_shape=(512, 576), band_mean=(1.0,), band_scale=(2.0,))
    found = DetectionSettings.for_model(config, confidence=0.5)
    assert (found.tile_shape, found.overlap, found.confidence, found.band_mean) == (
        (512, 576),
        64,
        0.5,
        (1.0,),
    )


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"minimum_area": 0}, {"confidence": 1.5}])
def test_impossible_settings_are_an_error(change):
    with pytest.raises(ValueError, match="received"):
        settings(**change)


def test_another_number_of_bands_is_an_error_that_names_both():
    with pytest.raises(SceneError, match="has 3 bands, the model was trained on 1"):
        find_in_scene(ArrayScene(np.zeros((5, 5, 3))), lambda batch: [], settings())


class BrokenScene(ArrayScene):
    """Can't be read from row 40 on."""

    def read(self, row, column, height, width):
        if row + height > 40:
            raise SceneError("rows 40 and on can't be read")
        return super().read(row, column, height, width)


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read ")]


def test_an_error_while_reading_reaches_the_caller_after_the_rows_that_were_fine():
    scene = BrokenScene(np.ones((100, 16, 1)))
    row = 0
    with pytest.raises(SceneError, match="rows 40 and on"):
        for block in find_in_scene(scene, lambda batch: [[] for _ in batch.tiles], settings()):
            row = block.row + len(block.instance_ids)
    assert row >= 24
    assert not reader_threads()


def test_a_caller_that_stops_early_leaves_no_reader_behind():
    blocks = find_in_scene(
        ArrayScene(np.ones((200, 16, 1))), lambda batch: [[] for _ in batch.tiles], settings()
    )
    next(blocks)
    assert len(reader_threads()) == 1
    blocks.close()
    assert not reader_threads()


def test_a_detector_that_leaves_tiles_out_is_an_error():
    with pytest.raises(ValueError, match="results of 1 tiles, received 0"):
        run(np.zeros((5, 5), np.int32), lambda batch: [])


def test_progress_counts_all_tiles_and_where_the_time_went():
    reports = []
    labels = in_reading_order(separate_parts((np.indices((60, 60)) % 20 > 9).all(axis=0).astype(np.int32)))
    scene = ArrayScene(np.ones((60, 60, 1)))
    found = list(find_in_scene(scene, perfect_finder(labels), settings(), reports.append))
    last = reports[-1]
    assert last.tiles_done == last.tiles_total == 25 and last.tiles_skipped == 0
    assert last.instances == sum(len(block.instances) for block in found) == 9
    assert min(last.seconds_network, last.seconds_merging, last.seconds_reading) > 0
    done = [report.tiles_done for report in reports]
    assert done == sorted(done)


class EndlessScene:
    """Rows made as they are asked for: nothing of the scene itself is in memory."""

    name, width, bands = "endless", 160, 3

    def __init__(self, height):
        self.height = height

    def read(self, row, column, height, width):
        return np.ones((height, width, 3), np.uint8), np.ones((height, width), dtype=bool)


def repeated_objects(batch):
    """Touching, overlapping fields of 24 x 24 pixels every 20, scores by place; cut at tile borders."""
    result = []
    for tile in batch.tiles:
        y1, x1, y2, x2 = tile.box
        found = []
        for row in range((y1 - 24) // 20 * 20, y2, 20):
            for column in range((x1 - 24) // 20 * 20, x2, 20):
                top, left, bottom, right = (
                    max(y1, row),
                    max(x1, column),
                    min(y2, row + 24),
                    min(x2, column + 24),
                )
                if row >= 0 and column >= 0 and top < bottom and left < right:
                    score = 0.7 + (row * 7 + column * 13) % 29 / 100
                    found.append(instance(np.ones((bottom - top, right - left)), top, left, score=score))
        result.append(found)
    return result


def peak_memory(height: int, finder) -> tuple[int, int]:
    """Bytes at the peak of a run, and the number of objects."""
    tracemalloc.start()
    count = 0
    run_settings = settings(band_mean=(0.0,) * 3, band_scale=(1.0,) * 3, tile_shape=(96, 96), overlap=32)
    for block in find_in_scene(EndlessScene(height), finder, run_settings):
        count += len(block.instances)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, count


def test_memory_does_not_grow_with_the_height_of_the_scene():
    low, few = peak_memory(600, repeated_objects)
    high, many = peak_memory(1800, repeated_objects)
    assert many > 2.9 * few
    assert high < 1.1 * low


def test_an_object_as_high_as_the_scene_is_kept_packed():
    def river(batch):
        pieces = [instance(np.ones((tile.height, 100)), tile.row, 10) for tile in batch.tiles]
        return [[piece] if tile.column == 0 else [] for piece, tile in zip(pieces, batch.tiles, strict=True)]

    low, _ = peak_memory(12_000, river)
    high, count = peak_memory(24_000, river)
    assert count == 1
    assert high - low < 12_000 * 100  # bytes; plain arrays of the object and its labels have 5 a pixel


def test_drawn_masks_survive_the_way_through_the_pipeline_with_their_holes():
    ring = np.ones((30, 30), dtype=bool)
    ring[10:20, 10:20] = False
    mask = crop_mask(ring, 5, 9)
    labels = paste(mask, 40, 45).astype(np.int32)
    ids, instances = run(labels, perfect_finder(labels), tile_shape=(13, 11), overlap=1)
    np.testing.assert_array_equal(ids, labels)
    assert instances[0].cells == 800
    assert labels[instances[0].row, instances[0].column] == 1
