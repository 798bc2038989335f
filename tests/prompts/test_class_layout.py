# SPDX-License-Identifier: Apache-2.0
"""Classes of one prompt: their masks, their ids, and what a click says of each."""

import numpy as np
import pytest
import torch

from scripts.errors import InputError
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import Prompt

NESTED = ClassLayout({"disc": [1, 2], "cup": [2]})
BESIDE = ClassLayout({"nerve": [1], "vessel": [2]})


@pytest.mark.parametrize("classes", [{}, None, {"a": [1], "b": [2], "c": [3], "d": [4]}])
def test_no_class_and_more_classes_than_masks_are_refused(classes):
    with pytest.raises(InputError, match="one to three classes, outermost first"):
        ClassLayout(classes)


def test_class_q_is_mask_1_and_q():
    logits, iou = torch.arange(2 * 2 * 4.0).reshape(2, 2, 4, 1, 1), torch.arange(2 * 2 * 4.0).reshape(2, 2, 4)
    chosen, quality = NESTED.select(logits, iou)
    assert chosen.flatten(1).tolist() == quality.flatten(1).tolist() == [[1, 6], [9, 14]]
    assert NESTED.mask_index == [1, 2]


@pytest.mark.parametrize(("layout", "clicks"), [(NESTED, [1, 4]), (BESIDE, [4, 4])])
def test_a_click_says_only_of_the_class_that_holds_all_others_that_it_is_there(layout, clicks):
    prompt = Prompt(np.array([[3, 4], [5, 6], [0, 0], [9, 9]], np.float32), np.array([1, 0, 2, 3]))
    asked = layout.prompts(prompt)
    assert [each.labels.tolist() for each in asked] == [[click, 0, 2, 3] for click in clicks]
    assert all(np.array_equal(each.points, prompt.points) for each in asked)
    assert prompt.labels[0] == 1


def test_a_label_map_is_split_into_the_masks_it_was_drawn_from():
    masks = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
    for order in ([0, 1], [1, 0]):  # the inner class lies on top however they come
        labels = torch.zeros(4, dtype=torch.uint8)
        for q in order:
            NESTED.draw(q, masks[q], labels)
        assert labels.tolist() == [1, 2, 0, 1]
    assert torch.equal(torch.stack(NESTED.split(labels)), masks)
