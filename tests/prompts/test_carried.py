# SPDX-License-Identifier: Apache-2.0
"""What the mask of a slice says of the next one."""

import numpy as np
import pytest

from scripts.prompts.carried import PARTS, carried_prompt


def mask_of(x0, y0, x1, y1, size=(30, 40)):
    mask = np.zeros(size, bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def test_a_mask_prompts_by_its_enlarged_box_and_its_innermost_point():
    prompt = carried_prompt(mask_of(5, 10, 24, 19), PARTS, margin=0.1)
    assert prompt.points.tolist()[:2] == [[3, 9], [26, 20]] and prompt.labels.tolist() == [2, 3, 1]
    x, y = prompt.points[2]
    assert 14 <= y <= 15 and 9 <= x <= 20
    assert prompt.points.dtype == np.float32 and prompt.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("parts", "labels"), [(["box"], [2, 3]), (["point"], [1]), (["mask"], []), (["point", "box"], [2, 3, 1])], ids=str
)
def test_parts_are_chosen(parts, labels):
    prompt = carried_prompt(mask_of(5, 10, 24, 19), parts)
    assert prompt.labels.tolist() == labels and prompt.points.shape == (len(labels), 2)


def test_a_box_stays_inside_the_image():
    assert carried_prompt(np.ones((5, 6), bool), PARTS, margin=0.5).points[:2].tolist() == [[0, 0], [5, 4]]


def test_an_empty_mask_says_nothing():
    with pytest.raises(ValueError, match="an empty mask says nothing"):
        carried_prompt(np.zeros((5, 5), bool))
