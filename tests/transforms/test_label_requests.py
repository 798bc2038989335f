# SPDX-License-Identifier: Apache-2.0
"""What clients of MONAI Label send becomes the bundle's prompts; what lies outside is clipped or left out."""

import pytest

from scripts.transforms.label_requests import is_request, read_request

VOLUME, PICTURE = (40, 50, 12), (40, 50)


def read(shape=VOLUME, **request):
    return [(e["slice"], e["points"], e["labels"]) for e in read_request(request, shape)]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"foreground": [[25, 15, 5]], "background": []}, [(5, [[25, 15]], [1])]),
        ({"foreground": [[25, 15, 5]], "background": [[3, 4, 5]]}, [(5, [[25, 15], [3, 4]], [1, 0])]),
        ({"foreground": [[1, 2, 3], [4, 5, 6]]}, [(3, [[1, 2]], [1]), (6, [[4, 5]], [1])]),
        ({"foreground": [[1, 2, 3], [4, 5, 6]], "slice": 6}, [(6, [[4, 5]], [1])]),  # a 2D client shows one
        ({"foreground": [[24.6, 15.2, 4.9]]}, [(5, [[25, 15]], [1])]),
        ({"foreground": [[], None, [7]], "background": None}, []),  # as OHIF sends
        ({"foreground": [[40, 2, 3], [1, -1, 3], [1, 2, 12]]}, []),  # outside
        ({"foreground": [["a", 2, 3], [float("nan"), 2, 3]]}, []),
        ({"foreground": [[5, 5, 2]], "background": [[1, 2, 4]]}, [(2, [[5, 5]], [1]), (4, [[1, 2]], [0])]),  # it ends
        ({"background": [[1, 2, 3]]}, []),  # nothing to take away from
    ],
)
def test_clicks_are_grouped_by_slice_and_those_outside_left_out(request_, expected):
    assert read(**request_) == expected


BOX = [[20, 7], [30, 23]]


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        ([20, 30, 7, 23, 4, 6], [(k, BOX, [2, 3]) for k in (4, 5, 6)]),
        ([30, 20, 23, 7, 6, 4], [(k, BOX, [2, 3]) for k in (4, 5, 6)]),  # of flipped axes
        ([-5, 60, 7, 23, 4, 4], [(4, [[0, 7], [39, 23]], [2, 3])]),  # clipped
        ([20, 30, 7, 23, 10, 99], [(k, BOX, [2, 3]) for k in (10, 11)]),
        ([20, 20, 7, 23, 4, 6], []),  # no area
        ([50, 60, 7, 23, 4, 6], []),  # outside
        ([], []),
        ([1, 2, 3], []),
        (None, []),
    ],
    ids=str,
)
def test_a_roi_is_a_box_on_each_of_its_slices_whatever_the_order_of_its_sides(roi, expected):
    assert read(roi=roi) == expected


def test_a_slice_that_is_a_position_in_mm_is_not_believed():
    assert [k for k, *_ in read(roi=[20, 30, 7, 23, 4, 6], slice=112)] == [5]


def test_a_box_and_clicks_on_its_slice_go_together():
    assert read(foreground=[[25, 15, 5]], roi=[20, 30, 7, 23, 5, 5]) == [(5, [[25, 15], *BOX], [1, 2, 3])]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"foreground": [[25, 15]]}, [(0, [[25, 15]], [1])]),
        ({"foreground": [[25, 15, 9]], "slice": 9}, [(0, [[25, 15]], [1])]),  # a picture has no slices
        ({"roi": [20, 7, 30, 23]}, [(0, BOX, [2, 3])]),  # CVAT's four numbers
        ({"roi": [20, 30, 7, 23, 0, 0]}, [(0, BOX, [2, 3])]),
    ],
)
def test_pictures_are_asked_for_in_two_axes(request_, expected):
    assert read(PICTURE, **request_) == expected


def test_a_request_is_told_from_an_item_of_a_list():
    assert is_request({"image": 1, "foreground": []}) and not is_request({"image": 1, "points": [], "slice": 3})
