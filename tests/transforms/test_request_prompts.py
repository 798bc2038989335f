# SPDX-License-Identifier: Apache-2.0
"""Prompts at the door: which ones apply to an image, and that they travel with it."""

import json

import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch

from scripts.errors import InputError
from scripts.transforms import RequestPromptsd

CLICK = [[30, 2, 1]]


def picture(shape=(3, 40, 28)):
    return MetaTensor(torch.zeros(shape), meta={"filename_or_obj": "/data/lesion.png"})


def request(item=None, shape=(3, 40, 28), **options):
    return RequestPromptsd(**options)({"image": picture(shape), **(item or {})})


def entries(data):
    return [(e["object"], e["slice"], e["points"], e["labels"]) for e in json.loads(data["image"].meta["prompts"])]


def test_prompts_of_the_request_apply_to_an_image_without_its_own():
    assert entries(request(points=CLICK)) == [(0, 0, [[30, 2]], [1])]
    assert entries(request(boxes=[[1, 2, 3, 4]])) == [(0, 0, [[1, 2], [3, 4]], [2, 3])]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"points": [[5, 6, 0]]}, [(0, 0, [[5, 6]], [0])]),
        ({"boxes": [[0, 0, 9, 9]]}, [(0, 0, [[0, 0], [9, 9]], [2, 3])]),
    ],
)
def test_prompts_of_the_item_replace_all_those_of_the_request(item, expected):
    assert entries(request(item, points=CLICK, boxes=[[1, 2, 3, 4]])) == expected


@pytest.mark.parametrize(("item", "k"), [({}, 2), ({"slice": 0}, 0), ({"slice": 4}, 4)])
def test_slice_of_the_item_goes_before_that_of_the_request(item, k):
    assert entries(request(item, (3, 40, 28, 5), points=CLICK, slice_index=2)) == [(0, k, [[30, 2]], [1])]


def test_image_without_any_prompt_is_asked_for_as_a_whole():
    assert entries(request()) == [(0, 0, [[0, 0], [39, 27]], [2, 3])]
    assert [k for _, k, *_ in entries(request(shape=(1, 40, 28, 3)))] == [0, 1, 2]


def test_points_are_x_and_y_of_the_files_own_grid():
    assert entries(request(points=[[39, 27, 1]])) == [(0, 0, [[39, 27]], [1])]
    with pytest.raises(
        InputError, match=r"^/data/lesion.png: point \(27, 39\) lies outside the image of 40 x 28 pixels"
    ):
        request(points=[[27, 39, 1]])


def test_prompts_leave_the_item_and_survive_collation():
    data = request({"points": CLICK, "slice": None, "name": "lesion"})
    assert set(data) == {"image", "name"}
    (batch,) = DataLoader([data], batch_size=1)
    (back,) = decollate_batch(batch)
    assert entries(back) == entries(data)


def test_image_that_came_is_left_without_prompts():
    image = picture()
    RequestPromptsd(points=CLICK)({"image": image})
    assert "prompts" not in image.meta


@pytest.mark.parametrize(
    ("points", "whole_image", "warns"),
    [
        ([[[5, 5, 2, 1], [3, 3, 6, 0]]], False, False),  # a stop of an object that spreads
        ([[[5, 5, 2, 1], [3, 3, 6, 0]]], True, True),
        ([[[3, 3, 6, 0]]], False, True),
        ([[[5, 5, 2, 1]], [[3, 3, 6, 0]]], False, True),  # of another object
    ],
)
def test_background_clicks_alone_are_told_unless_they_say_stop(points, whole_image, warns, caplog):
    request(shape=(1, 40, 28, 9), points=points, whole_image=whole_image)
    assert ("background clicks alone" in caplog.text) == warns
