# SPDX-License-Identifier: Apache-2.0
"""Logits to ids and probabilities."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.prompts.class_layout import ClassLayout
from scripts.transforms import MergeLogitsd


@pytest.mark.parametrize("tail", [(), (1,)])
def test_the_largest_logit_above_zero_wins(tail):
    logits = torch.tensor([[1.0, -1.0, 3.0, 2.0], [2.0, -2.0, 1.0, 2.0]]).reshape(2, 2, 2, *tail)
    merged = MergeLogitsd("pred")({"pred": MetaTensor(logits, meta={"prompts": "[]"}), "other": 1})
    assert merged["pred"].shape == (1, 2, 2, *tail)
    assert merged["pred"].flatten().tolist() == [2, 0, 1, 1]  # of equals the first
    assert merged["pred"].dtype == torch.uint8
    assert merged["pred"].meta["prompts"] == "[]"
    assert torch.equal(merged["probability"].as_tensor(), logits.sigmoid())
    assert merged["other"] == 1


def test_of_classes_the_innermost_wins_and_objects_share_a_probability():
    first = torch.tensor([[3.0, 3.0, -1.0, -1.0], [-1.0, 1.0, -1.0, -1.0]])  # outer and inner class of an object
    second = torch.tensor([[-1.0, 1.0, -1.0, 2.0], [-2.0, -2.0, -2.0, 1.0]])
    logits = torch.cat([first, second]).reshape(4, 2, 2)
    merged = MergeLogitsd("pred", layout=ClassLayout({"cell": [1, 2], "nucleus": [2]}))({"pred": MetaTensor(logits)})
    assert merged["pred"].flatten().tolist() == [1, 2, 0, 2]
    assert torch.equal(merged["probability"].flatten(1).as_tensor(), torch.maximum(first, second).sigmoid())
