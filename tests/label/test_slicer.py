# SPDX-License-Identifier: Apache-2.0
"""What 3D Slicer's extension sends and shows, by its own code."""

import numpy as np
import pytest

from tests.label.server import dice
from tests.label.slicer import Scene
from tests.label.studies import VOLUMES

pytestmark = pytest.mark.slow


@pytest.fixture(params=VOLUMES)
def name(request):
    return request.param


def slices_of(mask):
    return np.flatnonzero(mask.any((0, 1))).tolist()


def test_a_click_lands_where_it_was_placed(server, name):
    (x, y, k) = VOLUMES[name][1]
    sent, mask, shown = Scene(server, name, "efficientsam_2d").smart_edit([(x, y, k)])
    assert sent["foreground"] == [[x, y, k]] and sent["slice"] == shown == k
    assert mask[x, y, k] == 1 and slices_of(mask) == [k] and set(np.unique(mask)) == {0, 1}


def test_a_background_click_reaches_the_model(server, name):
    (x, y, k) = VOLUMES[name][1]
    scene = Scene(server, name, "efficientsam_2d")
    _, before, _ = scene.smart_edit([(x, y, k)])
    sent, after, _ = scene.smart_edit([(x, y, k)], [(x + 9, y, k)])
    assert sent["background"] == [[x + 9, y, k]] and (before != after).any()


@pytest.mark.parametrize("with_click", [True, False])
def test_a_box_finds_the_object_with_a_click_and_alone(server, truths, name, with_click):
    (x, y, k), truth = VOLUMES[name][1], truths[name]
    (x0, y0), (x1, y1) = np.argwhere(truth[..., k]).min(0), np.argwhere(truth[..., k]).max(0)
    scene = Scene(server, name, "efficientsam_2d")
    red = float(scene.ras((0, 0, k))[2])
    clicks = [(x, y, k)] if with_click else []
    sent, mask, _ = scene.smart_edit(clicks, box=[(x0, y0, k - 1), (x1, y1, k + 1)], red=red)
    assert sorted(sent["roi"][:2]) == [x0, x1]  # in any order: the axes of one volume are flipped
    assert dice(mask[..., k], truth[..., k]) > 0.9 and slices_of(mask) == [k]


def test_in_3d_each_clicked_slice_is_answered(server, name):
    (x, y, k) = VOLUMES[name][1]
    _, mask, shown = Scene(server, name, "efficientsam_3d").smart_edit([(x, y, k - 1), (x, y, k + 1)])
    assert shown is None and slices_of(mask) == [k - 1, k + 1]
