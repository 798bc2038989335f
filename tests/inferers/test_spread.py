# SPDX-License-Identifier: Apache-2.0
"""An object is followed through a volume to where it ends; what a user prompted stays as it was answered."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.inferers import EndOfObject, PromptedSliceInferer, SpreadInferer
from scripts.inferers.spread import prompt_of, slice_distance
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import read_entries
from scripts.transforms import RequestPromptsd
from tests.inferers.brightness import BrightnessNetwork

SIZE = (48, 40, 30)  # X, Y, Z
CENTRE, RADII = (22.0, 18.0, 14.0), (12.0, 9.0, 8.0)


def organ(centre=CENTRE, radii=RADII, tilt=0.6):
    """An ellipsoid whose middle moves from slice to slice, (X, Y, Z) bool."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij")
    x = x - tilt * (z - centre[2])
    parts = [((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii)]
    return torch.from_numpy(sum(parts) < 1)


def spread(volume, inferer=None, spacing=(2.0, 2.0, 2.0), **prompts):
    image = MetaTensor(volume.float().expand(3, *volume.shape), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    item = RequestPromptsd(**{"points": None, "boxes": None, "slice_index": None, **prompts})({"image": image})
    network = BrightnessNetwork()
    result = (inferer or SpreadInferer())(item["image"][None], network)
    return result, network


def dice(found, expected):
    return float(2 * (found & expected).sum() / (found.sum() + expected.sum()))


@pytest.mark.parametrize("k", [11, 14, 17])
def test_one_click_finds_the_whole_of_a_tilted_organ(k):
    truth = organ()
    x, y = (int(v.float().mean()) for v in truth[..., k].nonzero(as_tuple=True))
    result, network = spread(truth, points=[[x, y, k, 1]])
    assert result.shape == (1, 1, *SIZE) and result.dtype == torch.uint8
    assert dice(result[0, 0] == 1, truth) > 0.9  # all but its ends, where masks shrink fast
    present = truth.flatten(0, 1).any(0).nonzero().flatten()
    (entry,) = read_entries(result)
    assert present[0] <= entry["extent"][0] <= present[0] + 3 and present[-1] - 3 <= entry["extent"][1] <= present[-1]
    assert len(network.encoded) <= len(present) + 2
    assert torch.equal(result.affine, torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)))


def test_a_prompted_slice_is_never_changed_however_often_it_spreads():
    truth, clicks = organ(), [[22, 18, 14, 1]]
    truth[0:6, 0:6, 14] = True  # which a click on another slice would not find
    alone, _ = spread(truth, PromptedSliceInferer(merge=True), points=clicks)
    for more in ([17, 18, 9, 1], [26, 18, 18, 1], [24, 18, 16, 1]):
        clicks.append(more)
        result, _ = spread(truth, points=[clicks])
        assert torch.equal(result[..., 14], alone[..., 14])


def test_it_does_not_run_past_the_end_into_something_as_bright():
    truth = organ()
    volume = truth.clone()
    volume[..., 23:] = True  # a floor below
    result, _ = spread(volume, points=[[22, 18, 14, 1]])
    assert not result[0, 0, ..., 23:].any()
    assert dice(result[0, 0] == 1, truth) > 0.9


def test_an_empty_prompted_slice_bounds_an_object():
    result, _ = spread(organ(), points=[[[22, 18, 14, 1], [5, 5, 18, 0]]])
    present = (result[0, 0] == 1).flatten(0, 1).any(0).nonzero().flatten()
    assert int(present[-1]) == 17
    assert not result[..., 18:].any()


def test_between_two_prompted_slices_it_grows_from_both_without_an_end():
    volume = organ(tilt=0)
    volume[..., 13:15] = False
    volume[20:23, 17:20, 13:15] = True  # as thin as a thread
    alone, _ = spread(volume, points=[[22, 18, 10, 1]])
    assert not alone[0, 0, ..., 13:].any()  # where an object seems to end
    both, _ = spread(volume, points=[[[22, 18, 10, 1], [22, 18, 18, 1]]])
    assert dice(both[0, 0] == 1, volume) > 0.9


def test_objects_that_touch_stay_apart():
    first, second = (
        organ((16, 18, 14), (9, 8, 8), 0),
        organ((33, 18, 14), (9, 8, 8), 0) & ~organ((16, 18, 14), (9, 8, 8), 0),
    )
    volume = first.float() + 0.5 * second.float()
    result, _ = spread(volume, points=[[[16, 18, 14, 1]], [[34, 18, 14, 1]]])
    assert dice(result[0, 0] == 1, first) > 0.9 and dice(result[0, 0] == 2, second) > 0.9


@pytest.mark.parametrize("points", [[[2, 38, 14, 1]], [[22, 18, 0, 1]]], ids=["beside", "below"])
def test_a_click_outside_of_every_object_finds_no_object(points):
    truth = organ()
    result, _ = spread(truth, SpreadInferer(EndOfObject(area=0.9)), points=points)
    assert not ((result[0, 0] == 1) & truth).any()


@pytest.mark.parametrize("volume", [organ()[..., 14], organ()[..., 14:15]], ids=["picture", "one slice"])
def test_one_slice_has_nowhere_to_spread_to(volume):
    points = [[22, 18, 1]] if volume.ndim == 2 else [[22, 18, 0, 1]]
    result, network = spread(volume, points=points)
    assert torch.equal(result[0, 0] == 1, volume) and len(network.encoded) == 1


def test_borders_that_are_no_number_are_no_object():
    volume = organ().float()
    volume[:3], volume[..., :2] = np.nan, np.nan
    result, _ = spread(volume, points=[[22, 18, 14, 1]])
    assert dice(result[0, 0] == 1, organ()) > 0.9


@pytest.mark.parametrize(
    ("mask", "iou", "ends"),
    [
        ((10, 20), 0.9, False),
        ((10, 20), 0.3, True),  # the network does not believe it
        ((10, 12), 0.9, True),  # too small
        ((0, 40), 0.9, True),  # too large
        ((16, 26), 0.9, True),  # elsewhere
        ((0, 0), 0.9, True),
    ],
)
def test_an_object_ends_where_its_mask_does_not_follow(mask, iou, ends):
    before, now = torch.zeros(1, 40, dtype=torch.bool), torch.zeros(1, 40, dtype=torch.bool)
    before[:, 10:20], now[:, mask[0] : mask[1]] = True, True
    assert EndOfObject()(now, before, iou) == ends


def test_a_neighbour_prompts_by_its_enlarged_box_and_its_innermost_point():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 5:25] = True
    prompt = prompt_of(mask, 0.1)
    assert prompt.points.tolist()[:2] == [[3, 9], [26, 20]] and prompt.labels.tolist() == [2, 3, 1]
    x, y = prompt.points[2]
    assert 14 <= y <= 15 and 9 <= x <= 20
    assert prompt_of(np.ones((5, 5), bool), 0.5).points[:2].tolist() == [[0, 0], [4, 4]]
    with pytest.raises(ValueError, match="an empty mask"):
        prompt_of(np.zeros((5, 5), bool), 0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layout": ClassLayout({"cell": [1]})}, "weights with class masks cannot be spread"),
        ({"merge": False}, "spreading gives masks and no probabilities: leave output_probability out"),
    ],
)
def test_what_cannot_be_spread_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        SpreadInferer(**given)


def test_thick_slices_may_differ_more():
    truth = organ(radii=(12.0, 9.0, 14.0), tilt=0.2)[..., 2::4]  # every fourth slice
    points = [[22, 18, 3, 1]]
    thick, _ = spread(truth, spacing=(1.0, 1.0, 4.0), points=points)
    thin, _ = spread(truth, points=points)
    assert dice(thick[0, 0] == 1, truth) > 0.9 > dice(thin[0, 0] == 1, truth)


@pytest.mark.parametrize(
    ("spacing", "steps"), [((1, 1, 1), 1), ((2, 0.5, 3), 3), ((1, 1, 40), 4), ((0, 0, 1), 4), ((5, 5, 1), 0.25)]
)
def test_the_distance_of_slices_is_in_pixels_and_bounded(spacing, steps):
    image = MetaTensor(torch.zeros(1, 1, 2, 2, 2), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    assert slice_distance(image) == pytest.approx(steps)
    assert slice_distance(torch.zeros(1, 1, 2, 2, 2)) == 1
