# SPDX-License-Identifier: Apache-2.0
"""One label map from the logits of objects."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms import LabelMapd


def label_map(logits):
    return LabelMapd("pred")({"pred": MetaTensor(torch.as_tensor(logits), meta={"prompts": "[]"})})["pred"]


def test_largest_positive_logit_wins_and_the_rest_is_background():
    first = [[5.0, -1.0, 2.0], [0.0, -100.0, -3.0]]
    second = [[1.0, 3.0, 4.0], [-2.0, -100.0, 0.5]]
    assert label_map([first, second]).tolist() == [[[1, 2, 2], [0, 0, 2]]]


def test_inner_class_wins_over_the_one_around_it_whatever_their_logits():
    cell, nucleus = [[9.0, 9.0, -1.0]], [[1.0, -1.0, 1.0]]
    other_cell, other_nucleus = [[-1.0, -1.0, -1.0]], [[-1.0, 1.0, -1.0]]
    logits = MetaTensor(torch.tensor([cell, nucleus, other_cell, other_nucleus]))
    assert LabelMapd("pred", class_count=2)({"pred": logits})["pred"].tolist() == [[[2, 2, 2]]]
    assert LabelMapd("pred", class_count=2)({"pred": logits[:2]})["pred"].tolist() == [[[2, 1, 2]]]


def test_objects_keep_their_numbers_where_one_is_empty():
    assert label_map([[[-1.0, -1.0]], [[-1.0, -1.0]], [[-1.0, 1.0]]]).tolist() == [[[0, 3]]]


@pytest.mark.parametrize(
    ("count", "dtype"), [(1, torch.uint8), (255, torch.uint8), (256, torch.int32), (300, torch.int32)]
)
def test_map_is_wide_enough_for_its_objects(count, dtype):
    logits = torch.full((count, count, 1), -1.0)
    logits[range(count), range(count)] = 1.0
    labels = label_map(logits)
    assert labels.dtype == dtype
    assert labels.flatten().tolist() == list(range(1, count + 1))


def test_volume_keeps_its_axes_and_meta():
    labels = label_map(torch.ones(2, 3, 4, 5))
    assert labels.shape == (1, 3, 4, 5)
    assert labels.meta["prompts"] == "[]"
