# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures: always the same, of all kinds, and with objects that lie where their labels say."""

import numpy as np
import pytest
import torch

from scripts.data.made import ANEW, MadePicture, draw_picture
from scripts.data.made_effects import image_it
from scripts.data.made_shapes import draw_shape, fractal_noise, smooth_noise
from scripts.io.reading import LoadCheckedImaged


@pytest.fixture(scope="module")
def pictures():
    return [draw_picture(3, i) for i in range(24)]


def test_a_picture_is_bytes_and_its_objects_are_numbered_from_one_on(pictures):
    for image, ids in pictures:
        assert image.shape[:2] == ids.shape == (256, 256) and image.shape[2] in (1, 3)
        assert image.dtype == np.uint8 and ids.dtype == np.uint16
        present = np.unique(ids)
        assert present[-1] >= 1 and (np.diff(present) == 1).all()
        assert np.bincount(ids.ravel())[1:].min() >= 16


def test_pictures_are_of_all_kinds(pictures):
    counts = [ids.max() for _, ids in pictures]
    areas = np.concatenate([np.bincount(ids.ravel())[1:] for _, ids in pictures])
    assert min(counts) <= 2 and max(counts) >= 20
    assert areas.min() < 100 and areas.max() > 5000
    assert {image.shape[2] for image, _ in pictures} == {1, 3}


def test_the_same_seed_and_index_give_the_same_picture():
    first = [array.copy() for array in draw_picture(3, 5)]
    draw_picture.cache_clear()
    assert all(np.array_equal(*pair) for pair in zip(first, draw_picture(3, 5)))
    assert not np.array_equal(first[1], draw_picture(3, 6)[1])
    assert not np.array_equal(first[1], draw_picture(4, 5)[1])


def test_a_picture_without_objects_is_drawn_anew(monkeypatch):
    drawn = []

    def blind(rng, image):
        drawn.append(1)
        view = np.full(image.shape[:2], len(drawn) > 1)
        return np.clip(image, 0, 1), view

    draw_picture.cache_clear()
    monkeypatch.setattr("scripts.data.made.image_it", blind)
    _, ids = draw_picture(3, 7)
    assert len(drawn) == 2 and ids.any()
    assert np.array_equal(ids, draw_picture(3, 7 + ANEW)[1])
    draw_picture.cache_clear()


def test_in_the_place_of_a_path_it_is_what_a_reader_gives():
    image, ids = draw_picture(3, 2)
    pair = {"image": MadePicture(3, 2), "label": MadePicture(3, 2, label=True)}
    loaded = LoadCheckedImaged("label", label=True)(LoadCheckedImaged("image")(pair))
    assert torch.equal(loaded["image"].as_tensor(), torch.from_numpy(image).permute(2, 1, 0))  # [C, X, Y]
    assert torch.equal(loaded["label"].as_tensor(), torch.from_numpy(ids.astype(np.int32)).T[None])
    assert loaded["image"].meta["filename_or_obj"] == "made/3/000002" == str(pair["label"])


@pytest.mark.parametrize("radius", [4.0, 8.0, 60.0, 150.0])
def test_a_shape_lies_in_the_picture_around_its_centre_in_one_part(radius):
    from scipy import ndimage

    rng = np.random.default_rng(0)
    shapes = [draw_shape(rng, 100, np.array([70.0, 20.0]), radius) for _ in range(40)]
    shapes = [shape for shape in shapes if shape is not None]
    assert len(shapes) > 10
    for shape in shapes:
        rows, columns = shape.window
        assert 0 <= rows.start < rows.stop <= 100 and 0 <= columns.start < columns.stop <= 100
        assert ndimage.label(shape.mask)[1] == 1 and shape.mask.sum() >= 16


def test_a_shape_outside_of_the_picture_is_none():
    assert draw_shape(np.random.default_rng(0), 64, np.array([300.0, 300.0]), 5) is None


@pytest.mark.parametrize("cells", [2, 7.3, 40])
@pytest.mark.parametrize("size", [64, 100])
def test_noise_has_mean_0_and_deviation_1(size, cells):
    noise = smooth_noise(np.random.default_rng(0), size, cells)
    assert noise.shape == (size, size) and noise.dtype == np.float32
    assert abs(noise.mean()) < 1e-3 and noise.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.15 * cells * 64 / size
    assert fractal_noise(np.random.default_rng(0), size).std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_what_a_device_does_stays_in_0_to_1(seed):
    image, view = image_it(np.random.default_rng(seed), np.linspace(-0.5, 1.5, 64 * 64 * 3).reshape(64, 64, 3))
    assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
    assert view.shape == (64, 64) and view.mean() > 0.2
