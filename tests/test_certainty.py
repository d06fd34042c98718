"""Certainty of detections: tiles looked at in all turns, and the windows that labels would help most in."""

import numpy as np
import pytest

from ann.data.samples.augmentation import ORIENTATIONS, orient_image, turned_back
from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import Here
from ann.inference.tiles import Tile, cut_tiles
from drawn_scenes import instance, join_blocks, settings
from maskrcnn.instances.instances import Certainty, Detections
from maskrcnn.instances.pipeline import DOUBTFUL_SCORE, detect_scene, find_by_workers, network_finder
from maskrcnn.instances.turns import merge_turns
from maskrcnn.instances.uncertain import UncertainWindows, uncertainty


def biased_detector(images, windows):
    """Finds each patch of one value, smaller and less certain the further to the bottom right it lies."""
    found = []
    for image in images:
        boxes, scores = [], []
        for value in np.unique(image[image > 0]):
            rows, columns = np.nonzero(image[..., 0] == value)
            y1, y2, x1, x2 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            boxes.append((y1, x1, y2 - (y1 > 8), x2 - (x1 > 10)))
            scores.append(0.99 - 0.01 * y1 - 0.003 * x1 - 0.0007 * value)
        count = len(boxes)
        found.append(
            Detections(
                boxes=np.array(boxes, np.int32).reshape(-1, 4),
                class_ids=np.ones(count, np.int32),
                scores=np.array(scores, np.float32),
                masks=np.ones((count, 28, 28), np.float32),
            )
        )
    return found


def drawn(height, width):
    image = np.zeros((height, width, 1), np.float32)
    image[2:8, 3:12] = 10
    image[9:14, 20:27] = 20
    image[18:27, 5:10] = 30
    return image


def detect(image, **changes):
    scene = ArrayScene(image)
    changes = {"tile_shape": (32, 32), "confidence": 0.5, "turns": True} | changes
    return join_blocks(detect_scene(scene, biased_detector, settings(**changes)), image.shape[:2])


@pytest.mark.parametrize("turn", range(ORIENTATIONS))
@pytest.mark.parametrize("shape", [(32, 32), (30, 32)])  # the second one is padded
def test_a_turned_scene_gives_the_turned_result(turn, shape):
    image = drawn(*shape)
    ids, found = detect(image)
    turned_ids, turned_found = detect(np.ascontiguousarray(orient_image(image, turn)))
    np.testing.assert_array_equal(orient_image(ids > 0, turn), turned_ids > 0)

    def known(instances):
        return sorted((one.score, one.cells, one.certainty.votes, one.certainty.spread) for one in instances)

    assert known(turned_found) == known(found)
    assert all(one.certainty.spread > 0 for one in found)


def test_sightings_of_a_crowded_tile_belong_together_as_if_all_were_compared_with_all():
    random = np.random.default_rng(2)
    places = random.integers(0, 60, (30, 2))
    sightings = []
    for row, column in places.tolist():
        for turn in range(ORIENTATIONS):
            down, right, height, width = random.integers((0, 0, 6, 6), (5, 5, 14, 14))
            one = instance(
                np.ones((height, width)), int(row + down), int(column + right), score=random.random()
            )
            sightings.append((turn, one))
    objects = []  # (the first sighting's pixels, turns, scores)
    for turn, one in sorted(sightings, key=lambda sighting: -sighting[1].score):
        pixels = np.zeros((90, 90), bool)
        y1, x1, y2, x2 = one.mask.box
        pixels[y1:y2, x1:x2] = one.mask.pixels
        shared = [
            (pixels & first).sum() / (pixels | first).sum() * (turn not in turns)
            for first, turns, _ in objects
        ]
        if shared and max(shared) > 0.5:
            _, turns, scores = objects[int(np.argmax(shared))]
            turns.add(turn)
            scores.append(one.score)
        else:
            objects.append((pixels, {turn}, [one.score]))
    expected = sorted(sum(scores) / ORIENTATIONS for *_, scores in objects)
    assert 60 < len(objects) < 200
    np.testing.assert_allclose(sorted(one.score for one in merge_turns(sightings, 0.5)), expected)


def test_a_scene_of_many_tiles_is_turned_tile_by_tile():
    image = np.zeros((32, 56, 1), np.float32)
    image[10:20, 20:36] = 10  # in both tiles, which begin at columns 0 and 24
    (one,) = detect(image)[1]
    assert one.cells > 120 and one.certainty.votes == 8
    assert detect(image, turns=False)[1][0].certainty is None


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_what_is_turned_back_is_as_it_was(orientation):
    image = np.arange(6).reshape(2, 3)
    there = orient_image(image, orientation)
    np.testing.assert_array_equal(orient_image(there, turned_back(orientation)), image)


def test_sightings_of_one_object_become_one_with_votes_and_spread():
    sure = [(turn, instance(np.ones((4, 4)), score=0.8)) for turn in range(6)]
    doubtful = [(6, instance(np.ones((4, 5)), score=0.4, class_id=2)), (6, instance(np.ones((2, 4)), 20))]
    first, second = merge_turns([*sure, *doubtful], confidence=0.5)
    scores = [0.8] * 6 + [0.4, 0.0]
    assert first.score == pytest.approx(np.mean(scores)) and first.class_id == 1
    assert first.certainty == Certainty(votes=6, spread=pytest.approx(np.std(scores)))
    assert first.mask.box == (0, 0, 4, 4)  # the column that only one of them has goes
    assert second.score == pytest.approx(0.9 / 8) and second.certainty.votes == 1
    assert merge_turns([], confidence=0.5) == []


def test_two_objects_of_one_turn_stay_two():
    both = [(0, instance(np.ones((4, 4)))), (0, instance(np.ones((4, 3)), score=0.8))]
    assert len(merge_turns(both, confidence=0.5)) == 2


def test_windows_are_ranked_by_what_the_network_doubts():
    grid = cut_tiles(32, 70, (32, 32), 8)  # tiles from columns 0, 24 and 38, windows from 0, 32 and 64
    windows = UncertainWindows(grid)
    tiles = [Tile(row=0, column=column, height=32, width=32) for column in grid.column_starts]
    windows.add(tiles[0], [instance(np.ones((4, 4)), 10, 2, score=0.99)])
    seen_twice = instance(np.ones((4, 4)), 10, 42, score=0.5)
    windows.add(tiles[1], [seen_twice])
    windows.add(tiles[2], [seen_twice, instance(np.ones((4, 4)), 10, 66, score=0.3)])
    ranked = windows.ranked()
    assert [one.window.column for one in ranked] == [32, 64, 0]
    assert [one.window.width for one in ranked] == [32, 6, 32]
    assert [one.detections for one in ranked] == [1, 1, 1]
    assert [one.uncertainty for one in ranked] == pytest.approx([1.0, 0.84, 4 * 0.99 * 0.01])
    assert UncertainWindows(grid).ranked() == []


def test_turns_that_disagree_are_uncertain_too():
    (sure,) = merge_turns([(turn, instance(np.ones((4, 4)), score=0.95)) for turn in range(8)], 0.5)
    (torn,) = merge_turns([(turn, instance(np.ones((4, 4)), score=0.95)) for turn in range(4)], 0.5)
    assert uncertainty(sure) == pytest.approx(4 * 0.95 * 0.05)
    assert uncertainty(torn) > 0.95


def test_doubtful_detections_are_watched_and_change_no_object():
    image = drawn(32, 32)
    plain = settings(tile_shape=(32, 32), confidence=0.8)
    looking = settings(tile_shape=(32, 32), confidence=0.8, find_doubtful=True)
    assert (plain.lowest_score, looking.lowest_score) == (0.8, DOUBTFUL_SCORE)
    seen = []
    results = []
    for one in (plain, looking):
        workers = Here(network_finder(biased_detector, one))
        blocks = find_by_workers(
            ArrayScene(image), workers, one, watch=lambda tile, found: seen.append(len(found))
        )
        results.append(join_blocks(blocks, (32, 32)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] and seen == [2, 3]


def test_tiles_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square tiles"):
        settings(tile_shape=(16, 32), turns=True)
