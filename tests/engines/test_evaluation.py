# SPDX-License-Identifier: Apache-2.0
"""Evaluation with a simulated user: every kind of prompt, the clicks that follow, and what is kept of them."""

import numpy as np
import pytest
import torch

from scripts.engines import EvaluationSimulator
from scripts.networks import EfficientSAM
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.crops import SmallObjectCropper
from tests.engines.spy import PREDICTED_IOU, SpyNetwork, picture
from tests.networks.recipe import recipe_network

# an object of three greys, and the first of them again elsewhere, in two places
IMAGE = picture(
    (0.4, 8, 8, 20, 24), (0.7, 20, 8, 30, 24), (1.0, 8, 24, 30, 30), (0.4, 40, 40, 60, 60), (0.4, 50, 2, 60, 9)
)
OBJECT = picture((1.0, 8, 8, 30, 30))[:, :1]
PLAIN = picture((1.0, 8, 24, 30, 30))[:, :1]  # of one grey: right at once
BOX = [[8.0, 8.0], [29.0, 29.0]]


def prompts(points, labels):
    """Give points (Q, N, 2) and labels (Q, N) as a batch of one image."""
    return {"points": torch.tensor([points]), "labels": torch.tensor([labels])}


def click(x, y, *more):
    places = [(x, y), *more]
    return {"click_1": prompts([[list(map(float, place))] for place in places], [[1]] * len(places))}


def ask(network=None, clicks=(1, 3, 5), label=OBJECT, image=IMAGE, first=None, **settings):
    """Evaluate, without gradients, as an evaluator does."""
    user = EvaluationSimulator(network or SpyNetwork(), clicks, **settings).eval()
    with torch.no_grad():
        return user(image, label, first or click(12, 12))


def iou(mask, wanted):
    return float((mask & wanted).sum() / (mask | wanted).sum())


@pytest.mark.parametrize("clicks", [(), (3,), (0, 1), (-1, 1)], ids=str)
def test_clicks_that_do_not_count_from_one_are_refused(clicks):
    with pytest.raises(ValueError, match="clicks counts from 1"):
        EvaluationSimulator(SpyNetwork(), clicks)


def test_several_images_at_once_are_refused():
    with pytest.raises(ValueError, match="one image at a time: got 2"):
        EvaluationSimulator(SpyNetwork())(torch.cat([IMAGE, IMAGE]), OBJECT, click(12, 12))


@pytest.mark.parametrize("clicks", [(1,), (1, 2), (5, 1, 3), (1, 10)], ids=str)
def test_masks_are_kept_after_the_clicks_asked_for_and_traced_after_each(clicks):
    result = ask(clicks=clicks)
    assert set(result["masks"]) == set(result["iou"]) == {f"click_{count}" for count in clicks}
    assert result["trace"].shape == result["flips"].shape == (1, 1, max(clicks))
    for kind, mask in result["masks"].items():
        assert mask.shape == (1, 1, 64, 64)
        found = iou(mask[0, 0] > 0, OBJECT[0, 0] > 0)
        assert result["trace"][0, 0, int(kind[6:]) - 1] == pytest.approx(found)
        assert result["iou"][kind].tolist() == [[PREDICTED_IOU]]


def test_each_click_lies_innermost_in_the_largest_error_and_is_traced():
    network = SpyNetwork()
    result = ask(network, clicks=(1, 6))
    assert [asked.points[0, 0, -1].tolist() for asked in network.asked[:5]] == [
        [12, 12],
        [49, 49],  # the larger of the two regions that are not the object: 20 x 20
        [24, 24],  # the two greys that are missed touch: this is where the third begins
        [24, 12],  # the second
        [53, 5],  # the smaller of the two regions
    ]
    assert network.asked[-1].labels[0, 0].tolist() == [1, 0, 1, 1, 0]  # and no sixth: nothing is wrong
    whole, greys, wrong = 22 * 22, (12 * 16, 10 * 16, 22 * 6), (400, 70)
    expected = [
        greys[0] / (whole + sum(wrong)),
        greys[0] / (whole + wrong[1]),
        (greys[0] + greys[2]) / (whole + wrong[1]),
        whole / (whole + wrong[1]),
        1,
        1,
    ]
    np.testing.assert_allclose(result["trace"][0, 0], expected, rtol=1e-6)
    assert result["flips"].tolist() == [[[-1, 1, -1, -1, 1, -1]]]
    assert ((result["masks"]["click_6"] > 0) == (OBJECT > 0)).all()


class Stubborn(SpyNetwork):
    """A network that takes no background click to heart."""

    def answer(self, grey, xy, labels):
        return super().answer(grey, xy, [max(label, -1) if label else -1 for label in labels])


def test_a_background_click_that_changes_nothing_is_a_flip_that_failed():
    result = ask(Stubborn(), clicks=(1, 4))
    assert result["flips"].tolist() == [[[-1, 0, 0, 0]]]
    assert result["trace"][0, 0].unique().numel() == 1


def test_an_object_whose_mask_is_right_at_once_gets_no_more_clicks():
    network = SpyNetwork()
    result = ask(network, (1, 3), torch.cat([PLAIN, OBJECT], dim=1), first=click(12, 26, (12, 12)))
    assert [asked.labels[0].tolist() for asked in network.asked] == [
        [[1], [1]],
        [[1, -1], [1, 0]],
        [[1, -1, -1], [1, 0, 1]],
    ]
    assert result["trace"][0, 0].tolist() == [1, 1, 1]
    assert result["flips"][0].tolist() == [[-1, -1, -1], [-1, 1, -1]]


class ForgetsOnce(SpyNetwork):
    """A network whose second answer, though nobody clicked, takes more than the first."""

    def answer(self, grey, xy, labels):
        mask = super().answer(grey, xy, labels)
        return mask | (grey > 0.3) if len(self.asked) == 2 else mask


def test_a_background_click_after_a_round_without_one_is_told_too():
    network = ForgetsOnce()
    result = ask(network, (1, 3), PLAIN, first=click(12, 26))
    assert [asked.labels[0, 0].tolist() for asked in network.asked] == [[1], [1], [1, 0]]
    assert result["flips"].tolist() == [[[-1, -1, 1]]]


def test_every_kind_is_asked_on_its_own_and_the_image_is_encoded_once_for_all():
    network = SpyNetwork()
    first = {
        "box": prompts([BOX], [[2, 3]]),
        **click(12, 12),
        "click_box": prompts([[[12.0, 12.0], *BOX]], [[1, 2, 3]]),
        "box_jittered_20": prompts([[[4.0, 4.0], [40.0, 40.0]]], [[2, 3]]),
    }
    result = ask(network, clicks=(1, 2), first=first)
    assert set(result["masks"]) == {"box", "click_1", "click_2", "click_box", "box_jittered_20"} == set(result["iou"])
    assert network.encoded == [(1, 3, 64, 64)]
    assert len(network.asked) == 5
    assert [asked.mask_prompt is None for asked in network.asked] == [True, True, False, True, True]
    for kind in first:
        if kind != "click_1":
            alone = ask(clicks=(1,), first={kind: first[kind]})
            assert torch.equal(result["masks"][kind], alone["masks"][kind])
            assert "trace" not in alone and "flips" not in alone


def test_the_whole_image_is_asked_for_as_a_box():
    network = SpyNetwork()
    label = picture((1.0, 0, 0, 64, 64))[:, :1]
    image = picture((0.6, 0, 0, 64, 64))
    result = ask(network, (1, 3), label, image, {"whole": prompts([[[0.0, 0.0], [63.0, 63.0]]], [[2, 3]])})
    assert set(result["masks"]) == {"whole"}
    assert (result["masks"]["whole"] > 0).all()
    assert len(network.asked) == 1


@pytest.mark.parametrize("mask_feedback", [True, False])
def test_the_last_mask_is_shown_with_the_next_click_or_never(mask_feedback):
    network = SpyNetwork()
    result = ask(network, clicks=(1, 2, 3), mask_feedback=mask_feedback)
    assert network.asked[0].mask_prompt is None
    for count, asked in enumerate(network.asked[1:], 1):
        if mask_feedback:
            assert torch.equal(asked.mask_prompt > 0, result["masks"][f"click_{count}"][None] > 0)
        else:
            assert asked.mask_prompt is None


def test_classes_are_answered_by_their_own_masks():
    network, layout = SpyNetwork(), ClassLayout({"a": [1, 2, 3], "b": [2, 3], "c": [3]})
    result = ask(network, (1,), OBJECT.expand(1, 3, 64, 64), first=click(*[12, 12], *[(12, 12)] * 2), layout=layout)
    inside = network.answer(IMAGE[0, 0], [[12, 12]], [1])
    masks = result["masks"]["click_1"][0] > 0
    assert torch.equal(masks[0], ~inside) and torch.equal(masks[1], inside) and not masks[2].any()


def test_predictions_are_those_of_the_networks_own_forward():
    network = recipe_network("vitt", 64, corrections=True)
    image = torch.rand(1, 3, 90, 130, generator=torch.Generator().manual_seed(0))
    label = (image[:, :1] > 2).float()
    label[..., 20:60, 30:90] = 1
    first = click(40, 33) | {"box": prompts([[[30.0, 20.0], [89.0, 59.0]]], [[2, 3]])}
    result = ask(network, (1, 2), label, image, first)
    with torch.no_grad():
        for kind, given in first.items():
            expected = network(image, given["points"], given["labels"])
            torch.testing.assert_close(result["masks"][kind], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("crop", [None, SmallObjectCropper(64)], ids=["whole", "crops"])
def test_forty_clicks_on_the_real_network_are_the_same_to_the_last_digit_again(crop):
    torch.manual_seed(0)
    network = EfficientSAM("vitt", 64).eval()
    image = torch.rand(1, 3, 120, 100)
    label = torch.zeros(1, 2, 120, 100)
    label[0, 0, 30:90, 20:70] = 1
    label[0, 1, 0:9, 93:100] = 1  # small, in the corner
    found = [ask(network, (1, 5, 40), label, image, click(40, 60, (96, 4)), crop=crop) for _ in range(2)]
    assert found[0]["trace"].shape == found[0]["flips"].shape == (1, 2, 40)
    assert found[0]["trace"].isfinite().all()
    for key in ("trace", "flips"):
        assert torch.equal(found[0][key], found[1][key])
    for key in ("masks", "iou"):
        for kind in ("click_1", "click_5", "click_40"):
            assert torch.equal(found[0][key][kind], found[1][key][kind])


@pytest.mark.parametrize(
    "patch",
    [(30, 21, 31, 22), (0, 0, 1, 1), (63, 47, 64, 48), (0, 10, 5, 40), (40, 40, 64, 48), (0, 0, 64, 3)],
    ids=["one pixel", "first pixel", "last pixel", "left border", "lower right corner", "upper border"],
)
@pytest.mark.parametrize("crop", [None, SmallObjectCropper(64)], ids=["whole", "crops"])
def test_objects_of_one_pixel_and_at_the_border_are_clicked_and_traced(patch, crop):
    image = picture((1.0, *patch), size=(48, 64))
    label = image[:, :1].clone()
    network = recipe_network("vitt", 64)
    result = ask(network, (1, 4), label, image, click(patch[0], patch[1]), crop=crop)
    assert result["masks"]["click_4"].shape == (1, 1, 48, 64)
    assert result["trace"].shape == (1, 1, 4) and result["trace"].isfinite().all()
    expected = iou(result["masks"]["click_4"][0, 0] > 0, label[0, 0] > 0)
    assert result["trace"][0, 0, 3] == pytest.approx(expected)


def test_a_label_of_bytes_or_soft_masks_counts_above_a_half():
    expected = ask()
    for label in (OBJECT.byte(), 0.7 * OBJECT + 0.2 * (1 - OBJECT)):
        assert torch.equal(ask(label=label)["trace"], expected["trace"])


def test_clicks_that_follow_a_box_are_traced_without_it():
    first = {**click(12, 12), "box": prompts([BOX], [[2, 3]])}
    result = ask(clicks=(1,), box_clicks=3, first=first)
    assert set(result["masks"]) == {"click_1", "box", "box_3_clicks"}
    assert result["box_trace"].shape == (1, 1, 3) and result["trace"].shape == (1, 1, 1)
    alone = ask(clicks=(1,), first=first)
    assert torch.equal(result["masks"]["box"], alone["masks"]["box"]) and "box_trace" not in alone
    assert result["box_trace"][0, 0, -1] == pytest.approx(
        iou(result["masks"]["box_3_clicks"][0, 0] > 0, OBJECT[0, 0] > 0)
    )


def test_random_clicks_lie_in_the_largest_error_elsewhere_and_are_the_same_again():
    asked = []
    for random_clicks in (False, True, True):
        network = SpyNetwork()
        ask(network, clicks=(1, 2), random_clicks=random_clicks)
        asked.append(network.asked[-1].points[0, 0, :2])
    assert torch.equal(asked[1], asked[2])
    assert torch.equal(asked[0][0], asked[1][0]) and not torch.equal(asked[0][1], asked[1][1])
    x, y = asked[1][1].long().tolist()
    assert OBJECT[0, 0, y, x] != (abs(float(IMAGE[0, 0, y, x]) - 0.4) < 0.1)  # wrong after the first click
