# SPDX-License-Identifier: Apache-2.0
"""Axes are moved and moved back, and every voxel stays where it lies in the world."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.io.axes import on_file_axes, slice_axis, with_slices_along
from scripts.prompts.form import PREVIOUS_KEY
from scripts.transforms import SliceAxisd

AFFINE = torch.tensor([[-0.8, 0.1, 0, 30], [0.1, 0.8, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]], dtype=torch.float64)


def volume(**meta):
    return MetaTensor(torch.arange(3 * 4 * 5).reshape(1, 3, 4, 5), affine=AFFINE, meta=meta)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_voxel_keeps_its_place_in_the_world(axis):
    index = [1, 2, 3]
    moved = with_slices_along(volume(), axis)
    placed = [*(n for a, n in enumerate(index) if a != axis), index[axis]]
    assert moved[0, *placed] == volume()[0, *index]
    assert np.allclose(
        moved.affine @ torch.tensor([*placed, 1.0]).double(), AFFINE @ torch.tensor([*index, 1.0]).double()
    )
    back = on_file_axes(moved)
    assert torch.equal(back.as_tensor(), volume().as_tensor()) and torch.equal(back.affine, AFFINE)
    assert slice_axis(moved) == axis and slice_axis(back) == 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_that_came_along_moves_with_its_image(axis):
    given = volume()[0].as_tensor().clone()
    item = SliceAxisd(axis)({"image": volume(**{PREVIOUS_KEY: given})})
    assert torch.equal(item["image"].meta[PREVIOUS_KEY], item["image"].as_tensor()[0])


def test_a_picture_has_one_slice_and_stays():
    picture = volume()[..., 0]
    assert SliceAxisd(0)({"image": picture})["image"] is picture


@pytest.mark.parametrize("axis", [3, -1, "x"])
def test_an_axis_that_is_none_is_refused(axis):
    with pytest.raises(InputError, match="axis is 0, 1 or 2"):
        SliceAxisd(axis)
