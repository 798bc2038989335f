# SPDX-License-Identifier: Apache-2.0
"""An earlier mask travels with its image, and one of another size is refused."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.prompts.form import PREVIOUS_KEY
from scripts.transforms import PreviousMaskd
from tests.files import write_nifti, write_picture

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3  # (H, W)


def item(shape=(3, 4, 3), **more):
    return {"image": MetaTensor(torch.zeros(shape), meta={"filename_or_obj": "a.png"}), **more}


@pytest.mark.parametrize("in_item", [True, False])
def test_the_mask_comes_in_the_axes_of_the_image(tmp_path, in_item):
    path = str(write_picture(tmp_path / "a_mask.png", LABELS))
    before = item(mask=path) if in_item else item()
    data = PreviousMaskd(mask=None if in_item else path)(before)
    assert data["image"].meta[PREVIOUS_KEY].tolist() == LABELS.T.tolist()
    assert "mask" not in data and PREVIOUS_KEY not in before["image"].meta


def test_a_volumes_mask_is_a_volume(tmp_path):
    path = write_nifti(tmp_path / "a_mask.nii.gz", np.ones((4, 3, 2), np.uint8))
    data = PreviousMaskd(mask=str(path))(item((1, 4, 3, 2)))
    assert data["image"].meta[PREVIOUS_KEY].shape == (4, 3, 2)


def test_without_a_mask_nothing_travels():
    assert PREVIOUS_KEY not in PreviousMaskd()(item())["image"].meta


def test_a_mask_of_another_size_is_refused_with_both(tmp_path):
    path = write_picture(tmp_path / "a_mask.png", LABELS)
    with pytest.raises(
        InputError, match=r"a_mask.png is 4 x 3 but its image is 8 x 3: give a mask of the image's size"
    ):
        PreviousMaskd(mask=str(path))(item((3, 8, 3)))
