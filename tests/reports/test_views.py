# SPDX-License-Identifier: Apache-2.0
"""Three planes of a volume, upright, in the proportions of their millimetres, with what was found."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from scripts.prompts.form import Prompt
from scripts.reports import views
from scripts.reports.views import three_views


@pytest.fixture
def drawn(monkeypatch):
    """Each plane as it is drawn, before the planes are set side by side."""
    seen = []
    overlay = views.overlay
    monkeypatch.setattr(views, "overlay", lambda *args, **more: seen.append(args) or overlay(*args, **more))
    return seen


def volume(spacing=(1.0, 1.0, 3.0)):
    grey = torch.zeros(3, 10, 14, 6)
    grey[:, 2:4, 5:11, 4] = 1  # near the top
    return MetaTensor(grey, affine=torch.diag(torch.tensor([*spacing, 1.0])))


def test_planes_are_upright_and_in_proportion(drawn):
    image = volume()
    labels = (image[0] > 0.5).numpy().astype(np.uint8)
    prompt = Prompt(np.array([[3.0, 7.0]], np.float32), np.array([1]))
    sheet = three_views(image, labels, (3, 7, 4), [prompt], lambda plane: plane, min_side=64)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    slice_, across_y, across_x = drawn
    assert [each[0].shape[:2] for each in drawn] == [(14, 10), (18, 10), (18, 14)]  # rows, columns
    assert slice_[0][7, 3].tolist() == [255] * 3 and slice_[1][7, 3] == 1 and slice_[1].sum() == 12
    assert across_y[1][3:6, 2:4].all() and across_y[1].sum() == 6  # three rows of a slice, z upwards
    assert across_x[1][3:6, 5:11].all() and across_x[1].sum() == 18
    assert slice_[2].tolist() == [[[3.0, 7.0]]] and across_y[2] is None and across_x[2] is None


def test_wide_pixels_are_drawn_wide_and_prompts_stay_on_them(drawn):
    image = volume(spacing=(2.0, 1.0, 1.0))
    prompt = Prompt(np.array([[3.0, 7.0]], np.float32), np.array([1]))
    three_views(image, np.zeros((10, 14, 6), np.uint8), (3, 7, 4), [prompt], lambda plane: plane, min_side=64)
    assert drawn[0][0].shape[:2] == (14, 20) and drawn[0][2].tolist() == [[[6.5, 7.0]]]


def test_a_sheet_can_be_saved(tmp_path):
    sheet = three_views(volume(), np.zeros((10, 14, 6), np.uint8), (0, 0, 0), [], lambda plane: plane)
    Image.fromarray(sheet).save(tmp_path / "views.png")
