# SPDX-License-Identifier: Apache-2.0
"""Prompts of a person go with the image through every transform, and take the place of drawn ones."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd, RandRotate90d, Resized

from scripts.prompts.crops import SmallObjectCropper
from scripts.transforms import RandObjectMasksd, RandPromptsd, RandRecordedPromptsd

SIZE = (96, 128)


def item(recorded, k=0):
    label = torch.zeros(1, *SIZE, dtype=torch.int32)
    label[0, 30:61, 40:101] = 1
    image = MetaTensor(torch.rand(3, *SIZE))
    return {"image": image, "label": label, "slice": k, "objects": [[1]], "recorded": recorded}


def prompts_of(data, between=(), crop=None, kinds=None):
    steps = [
        RandRecordedPromptsd(1.0),
        RandObjectMasksd(4, crop=crop, crop_prob=1.0),
        *between,
        RandPromptsd(kinds or {"recorded": 0.5, "click_1": 0.5}),
    ]
    return Compose(steps).set_random_state(3)(data)


def test_clicks_and_boxes_come_as_they_were_given():
    found = prompts_of(item([[70, 45, 0, 1]]))
    assert found["points"][0, 0].tolist() == [70, 45] and found["point_labels"].tolist() == [[1, -1, -1]]
    found = prompts_of(item([[40, 30, 0, 2], [100, 60, 0, 3]]))
    assert found["points"][0].tolist() == [[40, 30], [100, 60], [-1, -1]]
    assert found["point_labels"].tolist() == [[2, 3, -1]]
    assert found["label"].shape == (1, *SIZE) and found["previous"].shape == (1, *SIZE)
    assert not set(found) & {"recorded", "markers", "marked"}


def test_the_first_of_many_clicks_ask_and_a_background_click_does_not_ask_alone():
    points = [[70 + n, 45, 0, int(n != 1)] for n in range(9)]
    seen = set()
    for seed in range(20):
        steps = Compose([RandRecordedPromptsd(1.0), RandObjectMasksd(4), RandPromptsd({"recorded": 0.5, "box": 0.5})])
        labels = steps.set_random_state(seed)(item(points))["point_labels"][0].tolist()
        seen.add(tuple(labels))
    assert seen == {(1, -1, -1), (1, 0, -1), (1, 0, 1)}
    found = prompts_of(item([[3, 3, 0, 0]]), kinds={"recorded": 0.9, "box": 0.1})
    assert found["point_labels"].tolist() == [[2, 3, -1]]  # a drawn one


@pytest.mark.parametrize("k", [1, 7])
def test_prompts_of_another_slice_are_not_of_this_one(k):
    found = prompts_of(item([[70, 45, 0, 1]], k), kinds={"recorded": 0.9, "box": 0.1})
    assert found["point_labels"].tolist() == [[2, 3, -1]]


@pytest.mark.parametrize("seed", range(6))
def test_they_follow_the_image_through_crops_turns_and_sizes(seed):
    data = item([[70, 45, 0, 1]])
    data["image"][:, 43:48, 68:73] = 5  # where the click is
    between = [
        Resized(["image", "label"], (64, 64), mode=["bilinear", "nearest-exact"]),
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=1),
        RandRotate90d(["image", "label"], prob=0.5),
        RandAffined(["image", "label"], prob=1.0, rotate_range=0.3, scale_range=0.1, mode=["bilinear", "nearest"]),
    ]
    crop = SmallObjectCropper(64, 128, 1.5, 32)
    steps = [RandRecordedPromptsd(1.0), RandObjectMasksd(4, crop=crop, crop_prob=1.0), *between]
    found = Compose([*steps, RandPromptsd({"recorded": 0.5, "box": 0.5})]).set_random_state(seed)(data)
    (x, y), *_ = found["points"][0].round().int().tolist()
    assert found["point_labels"][0].tolist() == [1, -1, -1]
    assert found["image"][0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max() > 2


def test_a_click_that_was_moved_out_of_the_picture_gives_place_to_a_drawn_one():
    class MoveOut:
        def __call__(self, data):
            data["label"][1:] = 0
            return data

    found = prompts_of(item([[70, 45, 0, 1]]), [MoveOut()], kinds={"recorded": 0.9, "box": 0.1})
    assert found["point_labels"].tolist() == [[2, 3, -1]] and found["label"].shape[0] == 1


def test_it_is_drawn_as_often_as_asked_and_needs_another_kind():
    steps = RandRecordedPromptsd(0.3)
    steps.set_random_state(0)
    share = np.mean(["markers" in steps(item([[70, 45, 0, 1]])) for _ in range(200)])
    assert 0.2 < share < 0.4
    with pytest.raises(ValueError, match="give a kind beside recorded"):
        RandPromptsd({"recorded": 1.0})
