# SPDX-License-Identifier: Apache-2.0
"""Crops: which objects are small, and which square of the image the network sees of them."""

import numpy as np
import pytest

from scripts.prompts.crops import SmallObjectCropper, box_around, contains, expand_crop, mask_box

SIZE = (300, 400)  # (H, W)


def box_of(x, y, width, height):
    """The box of an object whose first pixel is (x, y): its last pixel is inside."""
    return (x, y, x + width - 1, y + height - 1)


# --- which objects are small


@pytest.mark.parametrize(
    ("width", "height", "small"),
    [
        (99, 10, True),  # of 256 pixels, 400 columns: 64 are 100
        (100, 10, False),
        (10, 74, True),  # and of 300 rows: 75
        (10, 75, False),
        (1, 1, True),
    ],
)
def test_object_is_small_by_its_longer_side_on_the_networks_image(width, height, small):
    crop = SmallObjectCropper(256, below=64, context=1.0)(box_of(100, 100, width, height), SIZE)
    assert (crop is not None) == small


@pytest.mark.parametrize(("image_size", "small"), [(256, True), (1024, False)])
def test_object_that_is_small_to_one_network_is_not_to_a_larger_one(image_size, small):
    crop = SmallObjectCropper(image_size, below=64, context=1.0)(box_of(100, 100, 50, 50), SIZE)
    assert (crop is not None) == small


@pytest.mark.parametrize(("side", "gains"), [(66, True), (67, False)])  # 300 rows are 1.5 times 200
def test_crop_that_would_enlarge_by_less_than_a_half_is_not_made(side, gains):
    crop = SmallObjectCropper(256, below=256, context=3.0)(box_of(100, 100, side, side), SIZE)
    assert (crop is not None) == gains


def test_image_that_is_small_itself_is_never_cropped():
    assert SmallObjectCropper(256, min_side=32)(box_of(3, 4, 2, 2), (47, 400)) is None
    assert SmallObjectCropper(256, min_side=32)(box_of(3, 4, 2, 2), (48, 400)) is not None


# --- where the crop lies


@pytest.mark.parametrize(
    ("box", "crop"),
    [
        (box_of(100, 150, 20, 20), (80, 130, 140, 190)),
        (box_of(100, 150, 20, 6), (80, 123, 140, 183)),  # a square by the longer side
        (box_of(100, 150, 6, 20), (73, 130, 133, 190)),
        (box_of(0, 0, 20, 20), (0, 0, 60, 60)),
        (box_of(380, 280, 20, 20), (340, 240, 400, 300)),
        (box_of(5, 290, 20, 10), (0, 240, 60, 300)),
        (box_of(100, 150, 2, 2), (85, 135, 117, 167)),  # no less than 32
    ],
    ids=["middle", "wide", "high", "first-corner", "last-corner", "border", "least"],
)
def test_crop_is_a_square_around_the_object_moved_into_the_image(box, crop):
    assert SmallObjectCropper(256, below=64, context=3.0, min_side=32)(box, SIZE) == crop


@pytest.mark.parametrize("context", [0.6, 3.0, 4.5])
def test_crops_of_any_object_and_context_lie_in_the_image(context):
    rng, small = np.random.default_rng(0), SmallObjectCropper(256, min_side=8)
    for _ in range(200):
        width, height = rng.integers(1, 25, 2)
        x, y = rng.integers(0, (SIZE[1] - width + 1, SIZE[0] - height + 1))
        box = box_of(x, y, width, height)
        crop = small(box, SIZE, context)
        x0, y0, x1, y1 = crop
        assert 0 <= x0 < x1 <= SIZE[1]
        assert 0 <= y0 < y1 <= SIZE[0]
        assert x1 - x0 == y1 - y0 == max(round(context * max(width, height)), 8)
        assert all(isinstance(side, int) for side in crop)
        if context > 1:
            assert contains(crop, box[:2])
            assert contains(crop, box[2:])


def test_box_between_pixels_gives_a_crop_of_whole_ones():
    crop = SmallObjectCropper(256)((100.3, 150.7, 119.4, 170.2), SIZE)
    assert all(isinstance(side, int) for side in crop)
    assert crop[2] - crop[0] == crop[3] - crop[1] == 62  # three times 20.5 is 61.5


# --- boxes


def test_box_of_a_mask_is_its_first_and_last_pixel_in_x_and_y():
    mask = np.zeros((28, 40), bool)
    mask[1:9, 30:33] = True
    mask[7:9, 30:39] = True
    assert mask_box(mask) == (30, 1, 38, 8)


@pytest.mark.parametrize("pixel", [(0, 0), (27, 39)])
def test_box_of_one_pixel_begins_and_ends_there(pixel):
    mask = np.zeros((28, 40), bool)
    mask[pixel] = True
    assert mask_box(mask) == (pixel[1], pixel[0]) * 2


def test_empty_mask_has_no_box():
    assert mask_box(np.zeros((28, 40), bool)) is None


def test_box_around_boxes_holds_them_all():
    assert box_around([(5, 20, 9, 30), (7, 2, 8, 25), (6, 6, 6, 6)]) == (5, 2, 9, 30)
    assert box_around([(5, 20, 9, 30)]) == (5, 20, 9, 30)


@pytest.mark.parametrize(
    ("point", "inside"),
    [((10, 20), True), ((29.5, 49), True), ((30, 30), False), ((20, 50), False), ((9, 30), False), ((20, 19), False)],
)
def test_crop_holds_its_first_pixel_and_not_the_one_past_its_last(point, inside):
    assert contains((10, 20, 30, 50), point) == inside


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ((100, 60, 140, 100), (90, 50, 150, 110)),
        ((0, 10, 40, 50), (0, 0, 60, 60)),  # shifted into the image
        ((260, 160, 300, 200), (240, 140, 300, 200)),
        ((0, 0, 100, 100), None),  # all of it, since little would be gained
    ],
)
def test_a_wider_crop_is_half_as_wide_again_and_lies_in_the_image(crop, expected):
    assert expand_crop(crop, (200, 300)) == expected
