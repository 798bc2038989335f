# SPDX-License-Identifier: Apache-2.0
"""A label on its image's grid: every order and direction of axes, and what is refused."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.io.grids import on_grid_of

AFFINE = np.array([[0.0, -1.2, 0, 7], [0.9, 0, 0.1, -4], [0, 0.05, 2.5, 30], [0, 0, 0, 1]])
SHAPE = (3, 4, 5)


def tensor(array, affine):
    return MetaTensor(torch.as_tensor(np.ascontiguousarray(array))[None], affine=torch.as_tensor(affine))


@pytest.fixture
def image():
    return tensor(np.arange(60).reshape(SHAPE), AFFINE)


@pytest.mark.parametrize("flips", product([1, -1], repeat=3))
@pytest.mark.parametrize("order", permutations(range(3)))
def test_a_label_in_another_order_of_axes_is_brought_to_the_images(image, order, flips):
    orientation = nibabel.orientations.io_orientation(np.eye(4))
    orientation[:, 0], orientation[:, 1] = order, flips
    turned = nibabel.Nifti1Image(np.asarray(image[0], np.int16), AFFINE).as_reoriented(orientation)
    label = tensor(np.asarray(turned.dataobj), turned.affine)
    result = on_grid_of(label, image)
    assert torch.equal(result.as_tensor(), image.as_tensor().to(result.dtype))
    assert np.allclose(result.affine, AFFINE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a + np.diag([0, 0, 1.0, 0]), id="other spacing"),
        pytest.param(lambda a: a + np.array([[0, 0, 0, 1.0]] + [[0] * 4] * 3), id="shifted"),
        pytest.param(
            lambda a: a @ np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), id="turned"
        ),
        pytest.param(lambda a: a @ np.diag([-1.0, 1, 1, 1]), id="mirrored about the origin"),
    ],
)
def test_a_label_that_lies_elsewhere_is_refused(image, change):
    with pytest.raises(InputError, match="lie differently in space"):
        on_grid_of(tensor(np.zeros(SHAPE), change(AFFINE)), image)


def test_headers_may_round_and_an_identity_says_nothing(image):
    rounded = tensor(np.zeros(SHAPE), AFFINE + 1e-3)
    assert on_grid_of(rounded, image) is rounded
    unknown = tensor(np.zeros(SHAPE), np.eye(4))
    assert on_grid_of(unknown, image) is unknown


def test_pictures_have_no_place_in_space(image):
    picture = MetaTensor(torch.zeros(1, 3, 4))
    assert on_grid_of(picture, image) is picture
