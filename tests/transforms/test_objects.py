# SPDX-License-Identifier: Apache-2.0
"""From files' axes to one upright slice with one mask for each object asked for."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.transforms import SelectObjectsd

X, Y, Z = 7, 4, 3
IMAGE = torch.arange(3 * X * Y * Z).reshape(3, X, Y, Z)
LABEL = torch.arange(X * Y * Z).reshape(1, X, Y, Z) % 5


def select(image, label, objects, k=0):
    data = {"image": MetaTensor(image), "label": MetaTensor(label), "slice": k, "objects": objects, "case": "{}"}
    return SelectObjectsd()(data)


def test_picture_turns_to_rows_and_columns():
    data = select(IMAGE[..., 0], LABEL[..., 0], [[1]])
    assert data["image"].shape == (3, Y, X)
    assert data["label"].shape == (1, Y, X)
    for x in range(X):
        for y in range(Y):
            assert data["image"][:, y, x].tolist() == IMAGE[:, x, y, 0].tolist()
            assert data["label"][0, y, x] == (LABEL[0, x, y, 0] == 1)


@pytest.mark.parametrize("k", range(Z))
def test_slice_of_a_volume_is_taken_from_image_and_label(k):
    data = select(IMAGE, LABEL, [[1]], k)
    np.testing.assert_array_equal(data["image"], IMAGE[..., k].transpose(1, 2))
    np.testing.assert_array_equal(data["label"][0], (LABEL[0, ..., k] == 1).T)


@pytest.mark.parametrize(
    ("image", "label"),
    [(IMAGE[..., :1], LABEL[..., 0]), (IMAGE[..., 0], LABEL[..., :1])],
    ids=["image-has-a-slice-axis", "label-has-a-slice-axis"],
)
def test_one_slice_and_a_picture_go_together(image, label):
    data = select(image, label, [[1]])
    np.testing.assert_array_equal(data["image"], IMAGE[..., 0].transpose(1, 2))
    np.testing.assert_array_equal(data["label"][0], (LABEL[0, ..., 0] == 1).T)


def test_each_object_is_the_mask_of_its_ids_in_order():
    data = select(IMAGE[..., 0], LABEL[..., 0], [[4], [1, 2], [9]])
    upright = LABEL[0, ..., 0].T
    assert data["label"].dtype == torch.uint8
    np.testing.assert_array_equal(
        data["label"], np.stack([upright == 4, (upright == 1) | (upright == 2), upright == 9])
    )


def test_what_does_not_collate_is_taken_out_and_the_item_stays_as_it_was():
    item = {"image": MetaTensor(IMAGE[..., 0]), "label": MetaTensor(LABEL[..., 0]), "slice": 0, "objects": [[1]]}
    assert "objects" not in SelectObjectsd()(item)
    assert item["objects"] == [[1]]
    assert item["image"].shape == (3, X, Y)


def test_colour_label_is_refused():
    with pytest.raises(InputError, match="colour"):
        select(IMAGE[..., 0], IMAGE[..., 0], [[1]])
