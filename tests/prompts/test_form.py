# SPDX-License-Identifier: Apache-2.0
"""Prompts: every form that users write is read the same way, what cannot be meant is refused in one line, and simulated
prompts sit where the mask is."""

import numpy as np
import pytest
import torch

from scripts.errors import InputError
from scripts.prompts.form import (
    BACKGROUND,
    BOTTOM_RIGHT,
    FOREGROUND,
    PADDING,
    TOP_LEFT,
    align_points,
    box_prompt,
    click_prompt,
    pad_prompts,
    read_prompts,
    whole_prompt,
)

IMAGE, VOLUME = (40, 28), (40, 28, 5)  # X, Y[, Z]
CLICK = {"object": 0, "slice": 0, "points": [[30, 2]], "labels": [1]}
BOX = {"object": 0, "slice": 0, "points": [[3, 4], [30, 20]], "labels": [2, 3]}


def rng():
    return np.random.RandomState(0)


def lopsided():
    """An L near the right border of a mask of 28 rows and 40 columns: no pixel of it is one of its transposed mask."""
    mask = np.zeros((28, 40), bool)
    mask[1:9, 30:33] = True
    mask[7:9, 30:39] = True
    return mask


@pytest.mark.parametrize(
    ("points", "boxes", "entries"),
    [
        pytest.param([[30, 2, 1]], None, [CLICK], id="one-object"),
        pytest.param([30, 2, 1], None, [CLICK], id="one-point-without-its-list"),
        pytest.param(((30, 2, 1),), None, [CLICK], id="tuples"),
        pytest.param(np.array([[30, 2, 1]]), None, [CLICK], id="array"),
        pytest.param([np.array([[30, 2, 1]])], None, [CLICK], id="list-of-arrays"),
        pytest.param([[30.0, 2.0, 1.0]], None, [CLICK], id="floats"),
        pytest.param([[30, 2, 0, 1]], None, [CLICK], id="image-is-slice-0"),
        pytest.param([[30, 2, 1]], [], [CLICK], id="no-boxes"),
        pytest.param(
            [[30, 2, 1], [5, 6, 0]], None, [{**CLICK, "points": [[30, 2], [5, 6]], "labels": [1, 0]}], id="background"
        ),
        pytest.param(
            [[[30, 2, 1]], [[5, 6, 1], [39, 27, 0]]],
            None,
            [CLICK, {"object": 1, "slice": 0, "points": [[5, 6], [39, 27]], "labels": [1, 0]}],
            id="several-objects",
        ),
        pytest.param(
            np.array([[[30, 2, 1]], [[5, 6, 1]]]),
            None,
            [CLICK, {"object": 1, "slice": 0, "points": [[5, 6]], "labels": [1]}],
            id="array-of-several-objects",
        ),
        pytest.param(None, [[3, 4, 30, 20]], [BOX], id="box"),
        pytest.param(None, [3, 4, 30, 20], [BOX], id="box-without-its-list"),
        pytest.param([], [[3, 4, 30, 20]], [BOX], id="no-points"),
        pytest.param(None, np.array([[3, 4, 30, 20]]), [BOX], id="array-of-boxes"),
        pytest.param(None, [np.array([3, 4, 30, 20])], [BOX], id="list-of-arrays-of-boxes"),
        pytest.param(
            None,
            [[3, 4, 30, 20], [0.5, 0, 39, 27]],
            [BOX, {"object": 1, "slice": 0, "points": [[0.5, 0], [39, 27]], "labels": [2, 3]}],
            id="several-boxes",
        ),
        pytest.param(
            [[30, 2, 1]],
            [[3, 4, 30, 20]],
            [{"object": 0, "slice": 0, "points": [[30, 2], [3, 4], [30, 20]], "labels": [1, 2, 3]}],
            id="point-and-box",
        ),
        pytest.param(
            [[[30, 2, 1]], [[5, 6, 1]]],
            [[3, 4, 30, 20], [1, 1, 9, 9]],
            [
                {"object": 0, "slice": 0, "points": [[30, 2], [3, 4], [30, 20]], "labels": [1, 2, 3]},
                {"object": 1, "slice": 0, "points": [[5, 6], [1, 1], [9, 9]], "labels": [1, 2, 3]},
            ],
            id="several-points-and-boxes",
        ),
    ],
)
def test_every_form_of_prompt_is_read(points, boxes, entries):
    assert read_prompts(points, boxes, IMAGE) == entries


@pytest.mark.parametrize("corner", [(0, 0), (39, 0), (0, 27), (39, 27)])
def test_corner_pixels_are_inside(corner):
    assert read_prompts([[*corner, 1]], None, IMAGE)[0]["points"] == [list(corner)]


@pytest.mark.parametrize(
    ("points", "boxes", "slice_index", "found"),
    [
        pytest.param([[30, 2, 4, 1]], None, None, [(0, 4, [1])], id="point-names-its-slice"),
        pytest.param([[30, 2, 4, 1]], None, 2, [(0, 4, [1])], id="a-points-own-slice-goes-first"),
        pytest.param([[30, 2, 1]], None, 2, [(0, 2, [1])], id="slice-of-the-request"),
        pytest.param(
            [[30, 2, 4, 1], [5, 6, 0, 1], [7, 8, 4, 0]], None, None, [(0, 0, [1]), (0, 4, [1, 0])], id="two-slices"
        ),
        pytest.param([[[1, 2, 3, 1]], [[1, 2, 3, 0]]], None, None, [(0, 3, [1]), (1, 3, [0])], id="several-objects"),
        pytest.param(None, [[3, 4, 30, 20]], 2, [(0, 2, [2, 3])], id="box"),
        pytest.param([[5, 6, 1, 1]], [[3, 4, 30, 20]], 2, [(0, 1, [1]), (0, 2, [2, 3])], id="point-and-box-apart"),
        pytest.param([[5, 6, 2, 1]], [[3, 4, 30, 20]], 2, [(0, 2, [1, 2, 3])], id="point-and-box-together"),
    ],
)
def test_prompts_in_a_volume_have_one_entry_for_each_object_and_slice(points, boxes, slice_index, found):
    entries = read_prompts(points, boxes, VOLUME, slice_index)
    assert [(entry["object"], entry["slice"], entry["labels"]) for entry in entries] == found


@pytest.mark.parametrize("nothing", [None, []])
@pytest.mark.parametrize(
    ("shape", "slice_index", "slices"),
    [(IMAGE, None, [0]), ((40, 28, 1), None, [0]), (VOLUME, None, range(5)), (VOLUME, 3, [3])],
)
def test_without_a_prompt_the_whole_image_is_the_box_on_each_slice(nothing, shape, slice_index, slices):
    entries = read_prompts(nothing, nothing, shape, slice_index)
    assert [entry["slice"] for entry in entries] == list(slices)
    for entry in entries:
        assert (entry["object"], entry["points"], entry["labels"]) == (0, [[0, 0], [39, 27]], [TOP_LEFT, BOTTOM_RIGHT])


@pytest.mark.parametrize(
    ("points", "boxes", "advice"),
    [
        pytest.param([[-1, 2, 1]], None, "x is 0 to 39, y is 0 to 27", id="left-of-the-image"),
        pytest.param([[40, 2, 1]], None, "x is 0 to 39, y is 0 to 27", id="right-of-the-image"),
        pytest.param([[3, -0.5, 1]], None, "x is 0 to 39, y is 0 to 27", id="above-the-image"),
        pytest.param([[3, 28, 1]], None, "x is 0 to 39, y is 0 to 27", id="below-the-image"),
        pytest.param([[30, 2, 1], [3, 39, 1]], None, r"point \(3, 39\) lies outside", id="second-point-outside"),
        pytest.param([[30, 2, 2]], None, r"label 1 \(object\) or 0", id="label-2"),
        pytest.param([[30, 2, 0.5]], None, r"label 1 \(object\) or 0", id="label-half"),
        pytest.param([[30, 2, -1]], None, r"label 1 \(object\) or 0", id="label-padding"),
        pytest.param([[30, 2, True]], None, r"label 1 \(object\) or 0", id="label-true"),
        pytest.param([[float("nan"), 2, 1]], None, r"a point is \[x, y, label\]", id="nan"),
        pytest.param([[30, float("inf"), 1]], None, r"a point is \[x, y, label\]", id="infinite"),
        pytest.param([["30", 2, 1]], None, r"a point is \[x, y, label\]", id="text-in-a-point"),
        pytest.param([[None, 2, 1]], None, r"a point is \[x, y, label\]", id="none-in-a-point"),
        pytest.param("[[30, 2, 1]]", None, "points must be a list", id="text-for-points"),
        pytest.param({"x": 30}, None, "points must be a list", id="mapping-for-points"),
        pytest.param(5, None, "points must be a list", id="number-for-points"),
        pytest.param(np.array(5), None, "points must be a list", id="array-without-axes"),
        pytest.param([[30, 2]], None, r"a point is \[x, y, label\]", id="point-without-label"),
        pytest.param([[30, 2, 0, 0, 1]], None, r"a point is \[x, y, label\]", id="point-of-five"),
        pytest.param([[[30, 2, 1]], [5, 6, 1]], None, r"a point is \[x, y, label\]", id="list-and-point-mixed"),
        pytest.param([[5, 6, 1], [[30, 2, 1]]], None, r"a point is \[x, y, label\]", id="point-and-list-mixed"),
        pytest.param([[]], None, "needs at least one point", id="object-without-points"),
        pytest.param([[[30, 2, 1]], []], None, "needs at least one point", id="second-object-without-points"),
        pytest.param([[30, 2, 1, 1]], None, "slices 0 to 0", id="slice-of-an-image"),
        pytest.param(None, [[3, 4, 3, 20]], "no area", id="box-without-width"),
        pytest.param(None, [[3, 4, 30, 4]], "no area", id="box-without-height"),
        pytest.param(None, [[30, 4, 3, 20]], "x0 < x1 and y0 < y1", id="box-reversed-in-x"),
        pytest.param(None, [[3, 20, 30, 4]], "x0 < x1 and y0 < y1", id="box-reversed-in-y"),
        pytest.param(None, [[-1, 4, 30, 20]], r"corner \(-1, 4\) of box .* lies outside", id="box-left"),
        pytest.param(None, [[3, -4, 30, 20]], r"corner \(3, -4\) of box .* lies outside", id="box-above"),
        pytest.param(None, [[3, 4, 40, 20]], r"corner \(40, 20\) of box .* lies outside", id="box-right"),
        pytest.param(None, [[3, 4, 30, 28]], r"corner \(30, 28\) of box .* lies outside", id="box-below"),
        pytest.param(None, [[3, 4, 30]], r"a box is \[x0, y0, x1, y1\]", id="box-of-three"),
        pytest.param(None, [[3, 4, 30, "20"]], r"a box is \[x0, y0, x1, y1\]", id="text-in-a-box"),
        pytest.param(None, [[3, 4, 30, float("nan")]], r"a box is \[x0, y0, x1, y1\]", id="nan-in-a-box"),
        pytest.param(None, [[]], r"a box is \[x0, y0, x1, y1\]", id="empty-box"),
        pytest.param(None, [[3, 4, 30, 20], None], r"a box is \[x0, y0, x1, y1\]", id="one-box-missing"),
        pytest.param(None, "3,4,30,20", "boxes must be a list", id="text-for-boxes"),
        pytest.param(
            [[[30, 2, 1]], [[5, 6, 1]]], [[3, 4, 30, 20]], "2 objects have points but 1 have boxes", id="counts"
        ),
        pytest.param([np.array([[30, 2, 1], [99, 2, 1]])], None, "lies outside", id="array-with-a-point-outside"),
        pytest.param([np.zeros((2, 2))], None, r"a point is \[x, y, label\]", id="array-of-short-points"),
    ],
)
def test_prompt_that_cannot_be_meant_is_refused_in_one_line(points, boxes, advice):
    with pytest.raises(InputError, match=advice) as caught:
        read_prompts(points, boxes, IMAGE, name="lesion.png")
    assert str(caught.value).startswith("lesion.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("points", "boxes", "slice_index", "advice"),
    [
        pytest.param([[30, 2, 1]], None, None, r"5 slices: say which one .*slice 0 to 4", id="point-without-slice"),
        pytest.param(None, [[3, 4, 30, 20]], None, r"5 slices: say which one", id="box-without-slice"),
        pytest.param([[30, 2, 5, 1]], None, None, "slice 5 does not exist: it has slices 0 to 4", id="points-slice"),
        pytest.param([[30, 2, 1]], None, 5, "slice 5 does not exist", id="slice-beyond"),
        pytest.param([[30, 2, 1]], None, -1, "slice -1 does not exist", id="slice-before"),
        pytest.param([[30, 2, 1]], None, 1.5, "slice 1.5 does not exist", id="half-a-slice"),
        pytest.param([[30, 2, 1]], None, "2", "slice 2 does not exist", id="text"),
        pytest.param([[30, 2, 1]], None, True, "slice True does not exist", id="true"),
        pytest.param(None, None, 5, "slice 5 does not exist", id="whole-image"),
    ],
)
def test_slice_that_is_missing_or_does_not_exist_is_refused_in_one_line(points, boxes, slice_index, advice):
    with pytest.raises(InputError, match=advice) as caught:
        read_prompts(points, boxes, VOLUME, slice_index, "liver.nii.gz")
    assert str(caught.value).startswith("liver.nii.gz")
    assert "\n" not in str(caught.value)


def test_click_is_an_xy_inside_the_mask_and_reaches_all_of_it():
    mask, generator, clicked = lopsided(), rng(), np.zeros((28, 40), bool)
    for _ in range(600):
        points, labels = click_prompt(mask, generator)
        assert points.shape == (1, 2)
        assert points.dtype == np.float32
        assert labels.tolist() == [FOREGROUND]
        x, y = points[0].astype(int)
        clicked[y, x] = True
    np.testing.assert_array_equal(clicked, mask)


def test_box_without_jitter_names_the_first_and_last_pixel_of_the_mask():
    points, labels = box_prompt(lopsided(), rng())
    assert points.tolist() == [[30, 1], [38, 8]]
    assert points.dtype == np.float32
    assert labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]


def test_jitter_moves_each_side_by_at_most_its_share_of_the_boxs_side():
    mask, generator = np.zeros((100, 200), bool), rng()
    mask[40:60, 50:150] = True  # 20 high, 100 wide
    moved = np.array([box_prompt(mask, generator, 0.1)[0] for _ in range(300)]) - [[50, 40], [149, 59]]
    largest = np.abs(moved).max(0)
    assert (largest <= [[10, 2], [10, 2]]).all()
    assert (largest > [[9, 1.8], [9, 1.8]]).all()  # and uses that room


@pytest.mark.parametrize("jitter", [0.5, 0.9, 5.0])  # from 0.5 on, the sides may cross
def test_jittered_box_stays_in_the_image_and_in_order(jitter):
    generator, clipped = rng(), 0
    for _ in range(100):
        (left, top), (right, bottom) = box_prompt(lopsided(), generator, jitter)[0]
        assert 0 <= left <= right <= 39
        assert 0 <= top <= bottom <= 27
        clipped += top == 0 or right == 39
    assert clipped  # the mask is near enough to the border for this to be a test


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_object_of_one_pixel_gets_a_click_and_a_box_on_it(jitter):
    mask = np.zeros((28, 40), bool)
    mask[27, 39] = True
    assert click_prompt(mask, rng())[0].tolist() == [[39, 27]]
    np.testing.assert_allclose(box_prompt(mask, rng(), jitter)[0], [[39, 27], [39, 27]], atol=jitter)


@pytest.mark.parametrize("size", [(28, 40), (1, 1)])
def test_whole_prompt_is_the_box_of_a_mask_that_fills_the_image(size):
    points, labels = whole_prompt(size)
    box, box_labels = box_prompt(np.ones(size, bool), rng())
    assert points.tolist() == box.tolist() == [[0, 0], [size[1] - 1, size[0] - 1]]
    assert points.dtype == np.float32
    assert labels.tolist() == box_labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]


def test_whole_prompt_is_what_a_request_without_a_prompt_means():
    (entry,) = read_prompts(None, None, IMAGE)
    points, labels = whole_prompt(IMAGE[::-1])  # (H, W) of (X, Y)
    assert (points.tolist(), labels.tolist()) == (entry["points"], entry["labels"])


def test_padding_fills_up_to_the_longest_prompt():
    points, labels = pad_prompts([([[30, 2]], [1]), ([[5, 6], [3, 4], [30, 20]], [0, 2, 3])])
    assert (points.dtype, labels.dtype) == (np.float32, np.int64)
    assert points.tolist() == [[[30, 2], [-1, -1], [-1, -1]], [[5, 6], [3, 4], [30, 20]]]
    assert labels.tolist() == [[1, PADDING, PADDING], [0, 2, 3]]


@pytest.mark.parametrize(("slots", "width"), [(0, 1), (2, 2), (4, 4)])
def test_padding_fills_at_least_the_slots_asked_for(slots, width):
    points, labels = pad_prompts([([[30, 2]], [1])], slots)
    assert points.shape == (1, width, 2)
    assert labels.tolist() == [[1] + [PADDING] * (width - 1)]


def test_object_without_a_prompt_is_all_padding():
    points, labels = pad_prompts([(np.zeros((0, 2)), np.zeros(0)), ([[30, 2]], [1])], 2)
    assert (points[0] == -1).all()
    assert labels.tolist() == [[PADDING, PADDING], [1, PADDING]]


# --- on the network's grid


def align(points, labels, size, image_size):
    points, labels = torch.from_numpy(np.array(points, np.float32)), torch.from_numpy(np.array(labels))
    return align_points(points, labels, size, image_size).numpy()


def scaled(points, labels, size, image_size):
    """Align points, and scale them as the network does."""
    factor = image_size / np.array([size[1], size[0]])
    return align(points, labels, size, image_size) * factor


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_box_of_a_small_image_is_the_box_of_the_image_once_it_is_enlarged(factor):
    mask = np.pad(lopsided(), ((0, 12), (0, 0)))  # square, as the network's image
    points, labels = box_prompt(mask, rng())
    enlarged, _ = box_prompt(np.kron(mask, np.ones((factor, factor), bool)), rng())
    np.testing.assert_allclose(scaled(points, labels, mask.shape, factor * 40), enlarged, atol=1e-4)


@pytest.mark.parametrize("label", [FOREGROUND, BACKGROUND])
def test_click_on_a_small_image_falls_on_the_middle_of_its_pixel_once_that_is_enlarged(label):
    # pixel 3 of 30 columns is 24 to 31 of 240, pixel 2 of 60 rows is 8 to 11
    np.testing.assert_allclose(scaled([[3, 2]], [label], (60, 30), 240), [[27.5, 9.5]])


def test_points_on_a_larger_image_and_padding_stay():
    points, labels = pad_prompts([click_prompt(lopsided(), rng()), box_prompt(lopsided(), rng())])
    assert (labels == PADDING).any()
    np.testing.assert_array_equal(align(points, labels, (28, 40), 16), points)
    enlarged = align(points, labels, (28, 40), 80)
    np.testing.assert_array_equal(enlarged[labels == PADDING], -1)


def test_each_axis_is_aligned_by_its_own_factor():
    corners = align([[3.0, 4.0], [9.0, 8.0]], [TOP_LEFT, BOTTOM_RIGHT], (20, 400), 40)
    np.testing.assert_allclose(corners, [[3, 4], [9, 8.5]])
