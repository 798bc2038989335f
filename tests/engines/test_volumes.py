# SPDX-License-Identifier: Apache-2.0
"""A user of volumes prompts one slice, looks at what spreads, and mends the worst slices."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.engines import VolumeSimulator
from scripts.inferers import EndOfObject, SpreadInferer
from tests.inferers.brightness import BrightnessNetwork
from tests.inferers.test_spread import dice, organ

TRUTH = organ()


def ask(volume=TRUTH, label=TRUTH[None], network=None, inferer=None, **settings):
    image = MetaTensor(volume.float().expand(1, 3, *volume.shape), affine=torch.eye(4))
    user = VolumeSimulator(network or BrightnessNetwork(), inferer or SpreadInferer(), **settings)
    with torch.no_grad():
        return user(image, label[None].float())


def test_every_way_of_asking_is_kept_by_its_name():
    result = ask(corrected_slices=[1, 2], every_slice=["box"])
    firsts = ("click", "box", "mask")
    names = {*firsts, "every_slice_box", *(f"{kind}_corrected_{n}" for kind in firsts for n in (1, 2))}
    assert set(result["masks"]) == names and set(result["seconds"]) == set(firsts)
    assert all(mask.shape == (1, 1, *TRUTH.shape) and mask.dtype == torch.bool for mask in result["masks"].values())
    assert all(seconds.shape == (1, 1) and seconds > 0 for seconds in result["seconds"].values())
    assert dice(result["masks"]["mask"][0, 0], TRUTH) > 0.9


def test_the_first_prompt_is_on_the_largest_slice_and_a_true_mask_stays():
    volume = TRUTH.clone()
    volume[0:4, 0:4] = True  # as bright, beside it
    result = ask(volume, corrected_slices=[])
    largest = int(TRUTH.sum((0, 1)).argmax())
    assert torch.equal(result["masks"]["mask"][0, 0, ..., largest], TRUTH[..., largest])
    assert result["masks"]["click"][0, 0, 0:4, 0:4, largest].all()


def test_a_slice_where_the_object_is_not_is_mended_by_saying_so():
    volume = TRUTH.clone()
    volume[..., 20:] = TRUTH[..., 20:21]  # it seems to go on
    loose = SpreadInferer(EndOfObject(0.2, 0.1, 0.1))
    result = ask(volume, first_prompts=["mask"], corrected_slices=[1, 2], inferer=loose)
    masks = result["masks"]
    assert masks["mask"][..., 23:].any()
    assert dice(masks["mask_corrected_2"][0, 0], TRUTH) > dice(masks["mask"][0, 0], TRUTH)


def test_a_wrong_slice_is_clicked_until_it_is_right_and_spreads_on():
    volume = TRUTH.clone()
    volume[..., 16] = False
    volume[22:25, 17:20, 16] = True  # as thin as a thread, where it seems to end
    result = ask(volume, volume[None], first_prompts=["click"], corrected_slices=[1], slice_clicks=1)
    before, after = (result["masks"][name][0, 0] for name in ("click", "click_corrected_1"))
    assert not before[..., 17:].any()
    assert torch.equal(after[..., 17], TRUTH[..., 17]) and after[..., 19].any()
    assert dice(after, volume) > 0.85 > dice(before, volume)


def test_several_objects_are_asked_for_one_by_one():
    first, second = organ((14, 18, 14), (9, 8, 8), 0), organ((36, 18, 14), (8, 8, 8), 0)
    result = ask(first + 0.5 * second, torch.stack([first, second]), corrected_slices=[])
    assert all(dice(found, truth) > 0.9 for found, truth in zip(result["masks"]["click"][0], (first, second)))


def test_each_first_prompt_pays_for_its_encoding():
    network = BrightnessNetwork()
    ask(network=network, first_prompts=["click"], corrected_slices=[], every_slice=[])
    once = len(network.encoded)
    ask(network=network, first_prompts=["click", "box"], corrected_slices=[], every_slice=[])
    assert len(network.encoded) >= 3 * once - 1


@pytest.mark.parametrize("given", [{"first_prompts": ["whole"]}, {"every_slice": ["mask"]}], ids=str)
def test_prompts_that_do_not_exist_are_refused(given):
    with pytest.raises(ValueError, match="a prompt is one of"):
        VolumeSimulator(BrightnessNetwork(), SpreadInferer(), **given)


def test_several_volumes_at_once_are_refused():
    user = VolumeSimulator(BrightnessNetwork(), SpreadInferer())
    with pytest.raises(ValueError, match="one volume at a time: got 2"):
        user(torch.zeros(2, 1, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4))
