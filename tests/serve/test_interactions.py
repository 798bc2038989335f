# SPDX-License-Identifier: Apache-2.0
"""What clients say becomes prompts on the slices across any axis."""

import numpy as np
import pytest

from apps.common.errors import RequestError
from apps.serve.interactions import box, click, prompt_on, region, scribble, spaced
from tests.serve.serving import SHAPE

NOTHING = np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize(("axis", "xy"), [(0, [22, 18]), (1, [22, 14]), (2, [18, 14])])
def test_a_click_lies_on_one_slice_across_each_axis(axis, xy):
    said = click([14, 18, 22], True, SHAPE)
    assert said.axis is None and said.slices(axis) == [(14, 18, 22)[axis]]
    prompt = prompt_on([said], axis, (14, 18, 22)[axis])
    assert prompt.points.tolist() == [xy] and prompt.labels.tolist() == [1]
    assert not len(prompt_on([said], axis, 3).labels)


def test_points_keep_their_order_and_the_last_box_counts():
    said = [
        box([[14, 15], [1, 5], [2, 6]], True, NOTHING),
        click([14, 18, 22], True, SHAPE),
        click([14, 3, 4], False, SHAPE),
        click([15, 3, 4], True, SHAPE),
        box([[14, 15], [10, 20], [12, 30]], True, NOTHING),
    ]
    prompt = prompt_on(said, 0, 14)
    assert prompt.points.tolist() == [[12, 10], [29, 19], [22, 18], [4, 3]]
    assert prompt.labels.tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_across_one_axis_is_a_point_in_its_middle_across_the_others(axis):
    bounds = [[10, 20], [10, 20], [10, 20]]
    bounds[axis] = [14, 15]
    said = box(bounds, True, NOTHING)
    assert said.axis == axis
    assert prompt_on([said], axis, 14).labels.tolist() == [2, 3]
    assert prompt_on([said], axis, 14).points.tolist() == [[10, 10], [19, 19]]
    other = (axis + 1) % 3
    assert said.slices(other) == [14]
    assert prompt_on([said], other, 14).points.tolist() == [[14, 14]]


def test_a_box_of_napari_has_fractions_and_may_reach_beyond_the_image():
    said = box([[14.0, 15.0], [-0.4, 12.6], [30.2, 49.0]], True, NOTHING)
    assert said.box == ((14, 15), (0, 13), (30, 48))


def test_a_box_that_excludes_is_a_background_click_in_what_was_wrong():
    mask = NOTHING.copy()
    mask[14, 10:15, 10:15] = 1
    prompt = prompt_on([box([[14, 15], [5, 30], [5, 40]], False, mask)], 0, 14)
    assert prompt.points.tolist() == [[12, 12]] and prompt.labels.tolist() == [0]


@pytest.mark.parametrize("include", [True, False])
def test_a_lasso_has_its_point_where_the_mask_is_wrong(include):
    mask, drawn = NOTHING.copy(), np.ones((1, 11, 21), np.uint8)
    mask[14, 10:21, 10:21] = 1  # the left half of the lasso
    said = region(drawn, include, [[14, 15], [10, 21], [10, 31]], mask)
    (point,) = said.points.tolist()
    assert point[0] == 14 and 10 < point[1] < 20 and (point[2] > 20) == include
    assert said.slices(0) == [14] and prompt_on([said], 0, 14).labels.tolist() == [int(include)]


def test_a_scribble_is_points_along_it_far_from_each_other():
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[14, 12, 5:41] = 1
    said = scribble(drawn, True, None, NOTHING)
    points = prompt_on([said], 0, 14).points
    assert len(points) == 4 and set(points[:, 1]) == {12} and {5, 40} <= set(points[:, 0].tolist())
    assert spaced(np.array([[1, 2, 3]]), 4).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (lambda: click([1, 2], True, SHAPE), "three|3 indices"),
        (lambda: click([1, 2, 48], True, SHAPE), "outside the image"),
        (lambda: click([1, -1, 4], True, SHAPE), "outside the image"),
        (lambda: click([1, float("nan"), 4], True, SHAPE), "3 indices"),
        (lambda: click([1, float("inf"), 4], True, SHAPE), "3 indices"),
        (lambda: box([[1, 2], [3, 4]], True, NOTHING), "low and a high index"),
        (lambda: box([[1, 2], [3, 4], [5]], True, NOTHING), "low and a high index"),
        (lambda: box([[1, 2], [3, 9], [float("nan"), 5]], True, NOTHING), "low and a high index"),
        (lambda: box([[1, 5], [3, 9], [2, 5]], True, NOTHING), "lies on one slice"),
        (lambda: box([[40, 41], [3, 9], [2, 5]], True, NOTHING), "nothing of the image"),
        (lambda: box([[1, 1], [3, 9], [2, 5]], True, NOTHING), "nothing of the image"),
        (lambda: scribble(np.ones((1, 2, 3)), True, [[0, 1], [0, 2], [0, 4]], NOTHING), "has the shape"),
        (lambda: scribble(np.ones((2, 2, 3)), True, None, NOTHING), "has the shape"),
        (lambda: scribble(np.zeros(SHAPE), True, None, NOTHING), "nothing was drawn"),
        (lambda: region(np.zeros((1, 2, 3)), True, [[0, 1], [0, 2], [0, 3]], NOTHING), "nothing was drawn"),
    ],
)
def test_what_lies_nowhere_is_refused(said, message):
    with pytest.raises(RequestError, match=message):
        said()
