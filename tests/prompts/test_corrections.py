# SPDX-License-Identifier: Apache-2.0
"""Where the simulated user clicks next: in the largest error, at its innermost point, with the right label."""

import numpy as np
import pytest
from scipy import ndimage

from scripts.prompts.corrections import correction_click
from scripts.prompts.form import BACKGROUND, FOREGROUND


def mask(*boxes, size=(20, 30)):
    """Fill boxes (x0, y0, x1, y1), ends outside, of a mask of 20 rows and 30 columns."""
    filled = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        filled[y0:y1, x0:x1] = True
    return filled


def clicked(prediction, target, rng=None):
    """Give (x, y) and the label of the click, after checking its form."""
    xy, labels = correction_click(prediction, target, rng)
    assert xy.shape == (1, 2) and xy.dtype == np.float32
    assert labels.shape == (1,)
    return tuple(xy[0].astype(int).tolist()), int(labels[0])


def ring():
    y, x = np.mgrid[:20, :30]
    distance = np.hypot(y - 9, x - 14)
    return (distance > 4) & (distance < 9)


@pytest.mark.parametrize("rng", [None, np.random.RandomState(0)], ids=["innermost", "drawn"])
@pytest.mark.parametrize("filled", [mask(), mask((3, 4, 9, 8)), mask((0, 0, 30, 20))], ids=["empty", "some", "full"])
def test_a_right_prediction_needs_no_click(filled, rng):
    assert correction_click(filled, filled.copy(), rng) is None


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        pytest.param(mask(), mask((4, 3, 9, 8)), ((6, 5), FOREGROUND), id="missed"),
        pytest.param(mask((4, 3, 9, 8)), mask(), ((6, 5), BACKGROUND), id="taken for it"),
        pytest.param(mask((4, 3, 9, 8)), mask((20, 3, 27, 10)), ((23, 6), FOREGROUND), id="elsewhere, larger"),
        pytest.param(mask((20, 3, 27, 10)), mask((4, 3, 9, 8)), ((23, 6), BACKGROUND), id="elsewhere, smaller"),
        pytest.param(mask((0, 0, 30, 19)), mask((0, 0, 30, 20)), ((0, 19), FOREGROUND), id="last row missed"),
        pytest.param(mask((1, 1, 10, 10)), mask((1, 1, 10, 15)), ((3, 12), FOREGROUND), id="part missed"),
        pytest.param(mask((0, 0, 30, 20)), mask((0, 0, 30, 13)), ((3, 16), BACKGROUND), id="full prediction"),
        pytest.param(mask(), mask((7, 5, 8, 6)), ((7, 5), FOREGROUND), id="one pixel"),
        pytest.param(mask((29, 19, 30, 20)), mask(), ((29, 19), BACKGROUND), id="one pixel in the corner"),
        pytest.param(mask((4, 4, 6, 6)), mask((9, 4, 11, 6)), ((9, 4), FOREGROUND), id="equals: missed first"),
    ],
)
def test_click_lies_innermost_in_the_largest_error(prediction, target, expected):
    assert clicked(prediction, target) == expected


def test_the_largest_region_wins_not_the_kind_with_more_pixels():
    prediction = mask((0, 0, 5, 5), (8, 0, 13, 5), (16, 0, 21, 5), (24, 0, 29, 5))  # 4 x 25 pixels taken for it
    target = mask((3, 10, 9, 15))  # 30 pixels missed
    assert clicked(prediction, target) == ((5, 12), FOREGROUND)


def test_regions_that_touch_at_a_corner_are_two():
    assert clicked(mask(), mask((0, 0, 4, 4), (4, 4, 8, 8), (14, 10, 19, 14))) == ((15, 11), FOREGROUND)


def test_an_error_of_either_kind_that_touches_is_two_regions():
    prediction, target = mask((5, 5, 10, 10)), mask((10, 5, 16, 10))
    assert clicked(prediction, target) == ((12, 7), FOREGROUND)


REGIONS = {
    "ring": ring(),
    "open ring": ring() & ~mask((14, 0, 15, 9)),
    "touching the border": mask((0, 0, 3, 20)),
    "in the corner": mask((27, 17, 30, 20)),
    "frame": ~mask((2, 2, 28, 18)),
    "one pixel": mask((7, 5, 8, 6)),
    "a line": mask((0, 19, 30, 20)),
    "everything": ~mask(),
}


@pytest.mark.parametrize("region", REGIONS.values(), ids=list(REGIONS))
@pytest.mark.parametrize("missed", [True, False])
def test_click_is_inside_the_region_as_far_from_its_edge_and_the_images_as_can_be(region, missed):
    prediction, target = (mask(), region) if missed else (region, mask())
    (x, y), label = clicked(prediction, target)
    assert region[y, x] and label == missed
    outside = np.argwhere(~np.pad(region, 1)) - 1  # the image's edge is one
    depth = {tuple(p): np.hypot(*(outside - p).T).min() for p in np.argwhere(region)}
    assert depth[y, x] == max(depth.values())


@pytest.mark.parametrize("region", REGIONS.values(), ids=list(REGIONS))
@pytest.mark.parametrize("missed", [True, False])
def test_drawn_click_is_any_pixel_of_the_largest_region(region, missed):
    smaller = mask((24, 1, 25, 2)) & ~region if region.sum() > 1 else mask()
    errors = region | (smaller if not missed else mask())
    prediction, target = (smaller, region) if missed else (errors, mask())
    rng, pixels = np.random.RandomState(0), set()
    for _ in range(300):
        (x, y), label = clicked(prediction, target, rng)
        assert label == missed
        pixels.add((y, x))
    largest = {tuple(p) for p in np.argwhere(region)}
    assert pixels <= largest
    assert len(pixels) > 0.3 * min(len(largest), 300)
    spread = np.array(sorted(pixels)).std(0)
    np.testing.assert_allclose(spread, np.argwhere(region).std(0), atol=1)  # all over it


def test_the_innermost_click_is_the_same_again_and_a_drawn_one_follows_its_seed():
    prediction, target = mask((2, 3, 20, 9)), ring()
    assert clicked(prediction, target) == clicked(prediction, target)
    drawn = [
        [clicked(prediction, target, rng) for _ in range(9)]
        for rng in (np.random.RandomState(1), np.random.RandomState(1), np.random.RandomState(2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_masks_are_left_as_they_were():
    prediction, target = mask((2, 3, 20, 9)), ring()
    before = prediction.copy(), target.copy()
    correction_click(prediction, target)
    assert (prediction == before[0]).all() and (target == before[1]).all()


@pytest.mark.parametrize("seed", range(5))
def test_clicks_that_are_obeyed_come_to_an_end(seed):
    """A user whose region is put right at each click finishes after as many clicks as there are regions."""
    rng = np.random.RandomState(seed)
    prediction, target = rng.rand(20, 30) > 0.5, rng.rand(20, 30) > 0.5
    sizes = []
    while (click := correction_click(prediction, target)) is not None:
        (x, y), label = click[0][0].astype(int), click[1][0]
        errors = (target & ~prediction) if label == FOREGROUND else (prediction & ~target)
        regions, _ = ndimage.label(errors)
        assert regions[y, x] > 0
        region = regions == regions[y, x]
        sizes.append(region.sum())
        prediction = prediction ^ region
    assert (prediction == target).all()
    assert sizes == sorted(sizes, reverse=True) and len(sizes) > 20
