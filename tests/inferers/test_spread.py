# SPDX-License-Identifier: Apache-2.0
"""An object is followed through a volume to where it ends; what a user prompted stays as it was answered."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.inferers import EndOfObject, PromptedSliceInferer, SpreadInferer
from scripts.inferers.end_of_object import slice_distance
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import PREVIOUS_KEY, read_entries
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


def spread(volume, inferer=None, spacing=(2.0, 2.0, 2.0), given=None, **prompts):
    image = MetaTensor(volume.float().expand(3, *volume.shape), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    if given is not None:
        image.meta[PREVIOUS_KEY] = given
    item = RequestPromptsd(**{"whole_image": False, **prompts})({"image": image})
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


def test_a_mask_of_one_slice_stays_and_is_followed():
    truth, given = organ(), torch.zeros(SIZE, dtype=torch.uint8)
    given[..., 14] = truth[..., 14]
    given[0:6, 0:6, 14] = 1  # drawn by hand, where the network sees nothing
    result, _ = spread(truth, given=given)
    assert torch.equal(result[0, 0, ..., 14] == 1, given[..., 14] == 1)
    assert dice(result[0, 0] == 1, truth) > 0.9
    (entry,) = read_entries(result)
    assert entry["slice"] == 14 and entry["points"] == [] and entry["extent"][1] > 18


def test_masks_of_two_objects_are_followed_side_by_side_with_clicks_for_a_third():
    first, second = organ((12, 12, 14), (7, 7, 8), 0), organ((34, 12, 14), (7, 7, 8), 0)
    third = organ((22, 30, 14), (7, 7, 8), 0)
    given = (first + 2 * second.int()).to(torch.uint8)
    given[..., :12], given[..., 13:] = 0, 0
    points = [[[12, 12, 12, 1]], [[34, 12, 13, 1]], [[22, 30, 14, 1]]]
    volume = first + 0.6 * second + 0.3 * third
    result, _ = spread(volume, given=given, points=points)
    assert all(dice(result[0, 0] == i + 1, truth) > 0.9 for i, truth in enumerate((first, second, third)))
    assert {(e["object"], e["slice"]) for e in read_entries(result)} == {(0, 12), (1, 12), (1, 13), (2, 14)}


def test_a_background_click_on_a_slice_where_nothing_was_says_stop():
    given = torch.zeros(SIZE, dtype=torch.uint8)
    given[..., 14] = organ()[..., 14]
    result, _ = spread(organ(), given=given, points=[[[5, 5, 18, 0]]])
    assert not result[..., 18:].any() and result[..., 17].any()


def test_nothing_to_start_from_is_said():
    with pytest.raises(InputError, match="nothing says where an object of the image is: give --points or --boxes"):
        spread(organ())


@pytest.mark.parametrize("parts", [["point"], ["mask", "point"], ["box", "point"]], ids=str)
def test_a_plain_organ_is_followed_by_some_parts_of_masks(parts):
    truth = organ(tilt=0)
    result, _ = spread(truth, SpreadInferer(parts=parts), points=[[22, 18, 14, 1]])
    assert dice(result[0, 0] == 1, truth) > 0.85


def test_what_is_kept_is_half_precision_and_gives_the_same_again():
    network, inferer = BrightnessNetwork(), SpreadInferer()
    kept = inferer.kept_of(network, ("file", 3))
    with torch.no_grad():
        kept = inferer.kept_of(network, ("file", 3))
        kept[None] = torch.full((1, 4), 1 / 3)
        kept.update([((0, 0, 5, 5), torch.ones(1, 4))])
        again = inferer.kept_of(network, ("file", 3))
    assert again is kept and again[None].dtype == torch.float32
    assert torch.equal(again[None], torch.full((1, 4), 1 / 3).half().float())
    assert {value.dtype for value in kept.values()} == {torch.float16}


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layout": ClassLayout({"cell": [1]})}, "weights with class masks cannot be spread"),
        ({"merge": False}, "spreading gives masks and no probabilities: leave output_probability out"),
        ({"parts": ["box", "line"]}, "the parts of a mask that prompt the next slice are some of"),
        ({"parts": ["mask"]}, "a box or a point of them"),
    ],
)
def test_what_cannot_be_spread_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        SpreadInferer(**given)


def test_thick_slices_may_differ_more():
    truth = organ(radii=(12.0, 9.0, 14.0), tilt=0.2)[..., 2::4]  # every fourth slice
    points = [[22, 18, 3, 1]]
    end = EndOfObject(iou=0.75, area=0.5)
    thick, _ = spread(truth, SpreadInferer(end), spacing=(1.0, 1.0, 4.0), points=points)
    thin, _ = spread(truth, SpreadInferer(end), points=points)
    assert dice(thick[0, 0] == 1, truth) > 0.9 > dice(thin[0, 0] == 1, truth)


@pytest.mark.parametrize(
    ("spacing", "steps"), [((1, 1, 1), 1), ((2, 0.5, 3), 3), ((1, 1, 40), 4), ((0, 0, 1), 4), ((5, 5, 1), 1)]
)
def test_the_distance_of_slices_is_in_pixels_and_bounded(spacing, steps):
    image = MetaTensor(torch.zeros(1, 1, 2, 2, 2), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    assert slice_distance(image) == pytest.approx(steps)
    assert slice_distance(torch.zeros(1, 1, 2, 2, 2)) == 1
