# SPDX-License-Identifier: Apache-2.0
"""Superpixels as labels of pictures."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from scripts.data import superpixels
from scripts.data.superpixels import Superpixels, segment
from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged
from scripts.transforms import UprightSliced

pytest.importorskip("skimage")


@pytest.fixture
def squares():
    """A picture of four by three squares of different greys."""
    greys = np.random.default_rng(0).permutation(12).reshape(3, 4) * 20 + 10
    return np.kron(greys, np.ones((40, 40))).astype(np.uint8)


def test_squares_of_one_colour_become_objects(squares):
    ids = segment(np.stack([squares] * 3, -1), np.random.default_rng(1))
    assert ids.shape == squares.shape and ids.max() >= 2
    for y, x in ((60, 60), (60, 100)):  # the inner ones
        (inside, count) = np.unique(ids[y - 15 : y + 15, x - 15 : x + 15], return_counts=True)
        assert count.max() > 800 and inside[count.argmax()] > 0


def test_one_colour_alone_is_one_object():
    assert set(np.unique(segment(np.full((50, 60, 3), 90, np.uint8), np.random.default_rng(0)))) == {1}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_the_label_has_the_pictures_size_and_is_the_same_each_time(tmp_path, squares, mode, suffix):
    suffix = "png" if mode == "I;16" else suffix
    path, array = tmp_path / f"picture.{suffix}", squares.astype(np.uint16) * 100 if mode == "I;16" else squares
    picture = Image.fromarray(array)
    (picture.convert("RGB") if mode == "RGB" else picture).resize((500, 300)).save(path)
    label = Superpixels(str(path))
    ids = label()
    assert ids.shape == (1, 500, 300) and ids.max() >= 2
    loaded = Compose([LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced()])(
        {"image": label.path, "label": label, "slice": 0}
    )
    assert torch.equal(loaded["label"][0], ids.as_tensor()[0].T)
    assert (ids == label()).all()
    assert not np.array_equal(ids, Superpixels(label.path, seed=1)())


def test_without_scikit_image_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(superpixels, "has_skimage", False)
    with pytest.raises(InputError, match="need scikit-image: pip install scikit-image"):
        Superpixels(str(tmp_path / "picture.png"))()
