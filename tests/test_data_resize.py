"""The legacy geometry is exact, to the last bit, against what the original computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ann.data.outlines.masks import CroppedMask, crop_mask, paste
from ann.data.samples.resize import (
    expand_mini_mask,
    mini_mask,
    pad_image,
    resample,
    resize_bilinear,
    resize_image,
    resize_mask,
    resize_masks,
)

REFERENCE = Path(__file__).parent / "reference" / "data.npz"
ENLARGED, SHRUNK, PADDED = "resize0", "resize2", "resize6"


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", [ENLARGED, SHRUNK])
def test_images_are_resized_as_the_original_does(reference, case):
    min_dim, max_dim = (int(value) for value in reference[f"{case}_args"][:2])
    image, window, scale, padding = resize_image(reference[f"{case}_in"], min_dim, max_dim)
    np.testing.assert_array_equal(image, reference[f"{case}_out"])
    assert image.dtype == np.uint8
    assert window == tuple(reference[f"{case}_window"])
    assert scale == reference[f"{case}_scale"]
    np.testing.assert_array_equal(padding, reference[f"{case}_padding"][:2])


def test_padding_is_the_original_one(reference):
    image, padding = pad_image(reference[f"{PADDED}_in"], 192, 256)
    np.testing.assert_array_equal(image, reference[f"{PADDED}_out"])
    np.testing.assert_array_equal(padding, reference[f"{PADDED}_padding"][:2])


@pytest.mark.parametrize("case", [ENLARGED, SHRUNK])
def test_masks_follow_their_image_whole_or_cropped(reference, case):
    masks, expected = reference[f"{case}_mask_in"], reference[f"{case}_mask_out"]
    scale, padding = float(reference[f"{case}_scale"]), reference[f"{case}_padding"][:2]
    np.testing.assert_array_equal(resize_masks(masks, scale, padding), expected)
    before = masks.shape[:2]
    after = tuple(round(side * scale) for side in before)
    for index in range(masks.shape[2]):
        cropped = resize_mask(crop_mask(masks[..., index]), before, after, *padding[:, 0])
        assert cropped.box == tuple(reference[f"{case}_bboxes"][index])
        np.testing.assert_array_equal(paste(cropped, *expected.shape[:2]), expected[..., index])


@pytest.mark.parametrize("case", [ENLARGED, SHRUNK, PADDED])
def test_mini_masks_there_and_back_are_the_original_ones(reference, case):
    masks, minis = reference[f"{case}_mask_out"], reference[f"{case}_minimask"]
    for index, box in enumerate(reference[f"{case}_bboxes"]):
        mini = mini_mask(masks[..., index], minis.shape[:2])
        np.testing.assert_array_equal(mini, minis[..., index])
        np.testing.assert_array_equal(mini, mini_mask(crop_mask(masks[..., index]), minis.shape[:2]))
        expanded = expand_mini_mask(mini, box, *masks.shape[:2])
        np.testing.assert_array_equal(expanded, reference[f"{case}_expanded"][..., index])


def test_a_full_mini_mask_fills_its_box_to_the_corners():
    # Bilinear blending with the outside alone would round the corners of a large box off.
    expanded = expand_mini_mask(np.ones((56, 56), bool), (2, 3, 143, 136), 150, 140)
    assert expanded.sum() == 141 * 133


def test_a_mask_too_small_for_the_new_size_is_gone():
    dot = CroppedMask(row=1, column=1, pixels=np.ones((1, 1), bool))
    assert resize_mask(dot, (9, 9), (2, 2)) is None


def test_shrinking_keeps_16_bit_numbers_and_any_number_of_bands():
    image = np.full((8, 6, 5), 40000, np.uint16)
    resized = resize_bilinear(image, 4, 3)
    assert resized.dtype == np.uint16
    assert (resized[1:-1, 1:-1] == 40000).all()


def test_resample_is_linear_between_pixel_centres_and_flat_beyond_them():
    image = np.array([[0.0, 8.0]])[..., None]
    np.testing.assert_allclose(resample(image, 1, 4)[0, :, 0], [0, 2, 6, 8])
    np.testing.assert_allclose(resample(image, 2, 2)[:, :, 0], [[0, 8], [0, 8]])


def test_padding_refuses_what_is_too_large():
    with pytest.raises(ValueError, match="at most 4 x 4"):
        pad_image(np.zeros((5, 4, 1)), 4, 4)
