# SPDX-License-Identifier: Apache-2.0
"""The loss of a promptable segmenter: its value by hand, which masks learn, and what counts for nothing."""

import numpy as np
import pytest
import torch
from monai.losses import DiceFocalLoss, DiceLoss

from scripts.losses import PromptedMaskLoss
from scripts.losses.mask_loss import mask_iou
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import PADDING

SURE = 20.0  # a logit whose sigmoid is 0 or 1
LAYOUT = ClassLayout({"a": [1, 2, 3], "b": [2, 3], "c": [3]})


def dice_loss():
    return DiceLoss(sigmoid=True, reduction="none")


MASK_LOSSES = {
    "DiceLoss": dice_loss,
    "DiceFocalLoss": lambda: DiceFocalLoss(sigmoid=True, lambda_focal=20.0, reduction="none"),
}


def square(size=8, top=2, left=1, height=4, width=3):
    """A (size, size) mask of one lop-sided rectangle."""
    mask = torch.zeros(size, size)
    mask[top : top + height, left : left + width] = 1
    return mask


def as_logits(mask):
    """Logits that are sure of a mask."""
    return SURE * (2 * mask - 1)


def random_case(images=2, objects=3, size=8, seed=0):
    """Logits (B, Q, 4, h, w) and IoU (B, Q, 4) that take gradients, and targets (B, Q, H, W) none of which is empty."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, objects, 4, size, size, generator=generator).requires_grad_()
    iou = torch.rand(images, objects, 4, generator=generator).requires_grad_()
    target = (torch.rand(images, objects, size, size, generator=generator) > 0.6).float()
    target[..., 0, 0] = 1
    return logits, iou, target


def dice_by_hand(logits, mask):
    """MONAI's Dice loss of one mask, in numpy."""
    p, g = 1 / (1 + np.exp(-logits.detach().double().numpy())), mask.double().numpy()
    return 1 - (2 * (p * g).sum() + 1e-5) / (p.sum() + g.sum() + 1e-5)


def iou_by_hand(logits, mask):
    p, g = logits.detach().numpy() > 0, mask.numpy() > 0
    return (p & g).sum() / max((p | g).sum(), 1)


@pytest.mark.parametrize("kind", MASK_LOSSES)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_does(kind):
    loss = PromptedMaskLoss(MASK_LOSSES[kind]())
    target = square()[None, None]
    logits = as_logits(target)[:, :, None].expand(-1, -1, 4, -1, -1)
    assert loss((logits, torch.ones(1, 1, 4)), target) == pytest.approx(0, abs=1e-3)
    assert loss((-logits, torch.zeros(1, 1, 4)), target) > 1


def test_value_equals_the_hand_computation():
    logits, iou, target = random_case()
    expected = []
    for b in range(2):
        for q in range(3):
            masks = [dice_by_hand(logits[b, q, m], target[b, q]) for m in range(4)]
            errors = [(iou[b, q, m].item() - iou_by_hand(logits[b, q, m], target[b, q])) ** 2 for m in range(4)]
            expected.append(masks[0] + min(masks[1:]) + 0.5 * np.mean(errors))
    found = PromptedMaskLoss(dice_loss(), iou_weight=0.5)((logits.detach(), iou), target)
    assert found.item() == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("winners", [(1, 2), (3, 1), (2, 2)])
def test_only_mask_0_and_the_best_of_the_others_learn(winners):
    """Each of two objects has its own winner."""
    target = torch.stack([square(), square(left=4)])[None]
    logits = torch.zeros(1, 2, 4, 8, 8)
    for q, winner in enumerate(winners):
        logits[0, q, winner] = as_logits(target[0, q]) / 10
    logits.requires_grad_()
    PromptedMaskLoss(dice_loss())((logits, torch.zeros(1, 2, 4)), target).backward()
    for q, winner in enumerate(winners):
        learns = [bool(logits.grad[0, q, m].any()) for m in range(4)]
        assert learns == [m in (0, winner) for m in range(4)]


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([1, 1, 1, 0], [0, 1, 1, 1], 2 / 4),
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 0], 1 / 4),
    ],
)
def test_the_iou_part_is_the_squared_error_of_the_masks_own_iou(predicted, true, expected):
    logits = as_logits(torch.tensor(predicted).float()).reshape(1, 1, 1, 2, 2).expand(1, 1, 4, 2, 2)
    target = torch.tensor(true).float().reshape(1, 1, 2, 2)
    iou = torch.tensor([[[0.0, 0.25, 0.5, 1.0]]])
    without, whole = (PromptedMaskLoss(dice_loss(), weight)((logits, iou), target) for weight in (0.0, 2.0))
    by_hand = np.mean([(value - expected) ** 2 for value in (0.0, 0.25, 0.5, 1.0)])
    assert (whole - without).item() == pytest.approx(2.0 * by_hand, abs=1e-6)
    assert mask_iou(logits[0, 0, 0], target[0, 0]).item() == pytest.approx(expected)


def test_the_iou_part_teaches_the_iou_and_not_the_masks():
    logits, iou, target = random_case()
    gradients = {}
    for weight in (0.0, 100.0):
        loss = PromptedMaskLoss(dice_loss(), weight)((logits, iou), target)
        gradients[weight] = torch.autograd.grad(loss, (logits, iou), allow_unused=True)
    torch.testing.assert_close(gradients[0.0][0], gradients[100.0][0])
    assert not gradients[0.0][1].any()
    assert gradients[100.0][1].all()


def test_an_object_with_an_empty_target_counts_for_nothing():
    logits, iou, target = random_case()
    target[0, 1] = 0
    target[1, 2] = 0
    loss = PromptedMaskLoss(dice_loss())
    gradient = torch.autograd.grad(loss((logits, iou), target), (logits, iou))
    kept = [(0, 0), (0, 2), (1, 0), (1, 1)]
    alone = torch.stack([loss((logits[b : b + 1, q : q + 1], iou[b : b + 1, q : q + 1]), target[b : b + 1, q : q + 1])
                         for b, q in kept])  # fmt: skip
    assert loss((logits, iou), target).item() == pytest.approx(alone.mean().item(), abs=1e-6)
    for part in gradient:
        assert [(b, q) for b in range(2) for q in range(3) if part[b, q].any()] == kept


def test_an_object_that_was_asked_for_and_is_not_there_shall_have_an_empty_mask_and_a_bad_iou():
    logits, iou, target = random_case()
    target[0, 1] = 0
    points, labels = torch.full((2, 3, 2, 2), 0.5), torch.full((2, 3, 2), PADDING)
    labels[0, 1, 0] = 3
    loss = PromptedMaskLoss(dice_loss())
    gradient = torch.autograd.grad(loss((logits, iou, points, labels), target), (logits, iou))
    assert all(part[0, 1].any() for part in gradient)
    assert (gradient[0][0, 1] >= 0).all()  # a step takes the logits down
    nothing = torch.full_like(logits, -20.0)
    perfect = [loss((nothing, torch.full_like(iou, said), points, labels), 0 * target) for said in (0.0, 1.0)]
    assert perfect[0] < perfect[1]  # an empty mask promises nothing


def test_a_batch_of_empty_targets_costs_nothing_and_can_be_stepped():
    logits, iou, target = random_case()
    loss = PromptedMaskLoss(dice_loss())((logits, iou), torch.zeros_like(target))
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()
    assert not iou.grad.any()


def test_low_resolution_logits_are_resized_to_the_target():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(1, 1, 4, 4, 4, generator=generator)
    target = torch.zeros(1, 1, 12, 20)
    target[..., 3:9, 5:16] = 1
    high = torch.nn.functional.interpolate(low[0], (12, 20), mode="bilinear", align_corners=False)[None]
    loss, iou = PromptedMaskLoss(MASK_LOSSES["DiceFocalLoss"]()), torch.full((1, 1, 4), 0.3)
    assert loss((low, iou), target).item() == pytest.approx(loss((high, iou), target).item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_single_precision(dtype):
    logits, iou, target = random_case()
    logits, iou = logits.detach().to(dtype), iou.detach().to(dtype)
    loss = PromptedMaskLoss(dice_loss())
    found = loss((logits, iou), target)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss((logits.float(), iou.float()), target).item(), abs=1e-6)


@pytest.mark.filterwarnings("error")  # torch would read bytes as indices one day
def test_a_target_of_bytes_scores_as_one_of_floats():
    logits, iou, target = random_case()
    loss = PromptedMaskLoss(MASK_LOSSES["DiceFocalLoss"]())
    assert loss((logits, iou), target.byte()).item() == pytest.approx(loss((logits, iou), target).item(), abs=1e-6)


@pytest.mark.parametrize("images_and_objects", [(1, 3), (2, 2), (3, 2)])
def test_targets_of_other_images_or_objects_are_refused(images_and_objects):
    logits, iou, _ = random_case()
    with pytest.raises(ValueError, match=r"prediction of \(2, 3\) images and objects, target of \(\d, \d\)"):
        PromptedMaskLoss(dice_loss())((logits, iou), torch.ones(*images_and_objects, 8, 8))


def round_of(seed, images=2, objects=3):
    logits, iou, _ = random_case(images, objects, seed=seed)
    return logits, iou


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_count_alike(rounds):
    _, _, target = random_case()
    loss, predictions = PromptedMaskLoss(MASK_LOSSES["DiceFocalLoss"]()), [round_of(seed) for seed in range(rounds)]
    expected = [loss(prediction, target).item() for prediction in predictions]
    found = loss(predictions, target)
    assert found.shape == () and found.item() == pytest.approx(np.mean(expected), abs=1e-6)
    found.backward()
    for logits, iou in predictions:
        alone = [part.detach().clone().requires_grad_() for part in (logits, iou)]
        loss(tuple(alone), target).backward()
        torch.testing.assert_close(logits.grad, alone[0].grad / rounds)
        torch.testing.assert_close(iou.grad, alone[1].grad / rounds)


def test_padding_counts_for_nothing_in_any_round():
    _, _, target = random_case()
    target[1, 1:] = 0
    loss, predictions = PromptedMaskLoss(dice_loss()), [round_of(seed) for seed in range(2)]
    loss(predictions, target).backward()
    for logits, iou in predictions:
        for part in (logits, iou):
            assert not part.grad[1, 1:].any() and part.grad[0].any() and part.grad[1, 0].any()
    changed = [(logits.detach().clone(), iou.detach().clone()) for logits, iou in predictions]
    for logits, iou in changed:
        logits[1, 1:], iou[1, 1:] = 50, 9
    assert loss(changed, target).item() == pytest.approx(loss(predictions, target).item(), abs=1e-6)


def test_rounds_of_padding_alone_cost_nothing_and_can_be_stepped():
    predictions = [round_of(seed) for seed in range(2)]
    loss = PromptedMaskLoss(dice_loss())(predictions, torch.zeros(2, 3, 8, 8))
    loss.backward()
    assert loss.item() == 0
    assert not any(part.grad.any() for prediction in predictions for part in prediction)


def test_a_soft_target_is_scored_as_it_is_and_its_iou_at_a_half():
    logits, iou, hard = random_case()
    soft = 0.8 * hard + 0.1
    by_hand = []
    for b in range(2):
        for q in range(3):
            masks = [dice_by_hand(logits[b, q, m], soft[b, q]) for m in range(4)]
            errors = [(iou[b, q, m].item() - iou_by_hand(logits[b, q, m], hard[b, q])) ** 2 for m in range(4)]
            by_hand.append(masks[0] + min(masks[1:]) + np.mean(errors))
    loss = PromptedMaskLoss(dice_loss())
    assert loss((logits, iou), soft).item() == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert loss((logits, iou), soft).item() != pytest.approx(loss((logits, iou), hard).item(), abs=1e-3)


@pytest.mark.parametrize(("share", "counts"), [(0.4, False), (0.5, False), (0.51, True)])
def test_a_soft_target_nowhere_above_a_half_is_padding(share, counts):
    logits, iou, target = random_case()
    assert (PromptedMaskLoss(dice_loss())((logits, iou), share * target).item() > 0) == counts


def cross_entropy_by_hand(logit, wanted):
    return np.log1p(np.exp(-logit if wanted else logit))


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_clicks_cost_the_cross_entropy_of_each_mask_at_their_pixel(weight):
    logits, iou, target = random_case(1, 2)
    pixels, labels = torch.tensor([[[1.0, 6.0], [3.0, 0.0], [-1.0, -1.0], [2.0, 2.0]]]), torch.tensor([[1, 0, -1, 2]])
    pixels, labels = pixels.expand(2, 4, 2)[None], torch.cat([labels, torch.tensor([[-1, 3, 1, -1]])])[None]
    points = (pixels + 0.5) / 8
    values = logits.detach().double().numpy()
    clicks = np.zeros((2, 4))
    clicks[0] = [np.mean([cross_entropy_by_hand(values[0, 0, m, 6, 1], True),
                          cross_entropy_by_hand(values[0, 0, m, 0, 3], False)]) for m in range(4)]  # fmt: skip
    outside = (-1, -1)  # the second object's one click is off the image: it reads as a logit of 0
    assert pixels[0, 1, 2].tolist() == list(outside)
    clicks[1] = np.log(2)
    expected = []
    for q in range(2):
        masks = [dice_by_hand(logits[0, q, m], target[0, q]) + weight * clicks[q, m] for m in range(4)]
        expected.append(masks[0] + min(masks[1:]))
    loss = PromptedMaskLoss(dice_loss(), iou_weight=0.0, click_weight=weight)
    assert loss((logits, iou, points, labels), target).item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_objects_without_clicks_cost_what_they_cost_without_points():
    logits, iou, target = random_case()
    points, labels = torch.rand(2, 3, 2, 2), torch.tensor([[2, 3], [-1, -1], [3, -1]]).expand(2, 3, 2)
    loss = PromptedMaskLoss(dice_loss())
    assert loss((logits, iou, points, labels), target).item() == pytest.approx(loss((logits, iou), target).item())


def test_a_click_teaches_the_masks_that_learn_at_its_pixel():
    logits, iou, target = random_case(1, 1)
    points, loss = (torch.tensor([[[[5.0, 2.0]]]]) + 0.5) / 8, {}
    for weight in (0.0, 1.0):
        value = PromptedMaskLoss(dice_loss(), click_weight=weight)((logits, iou, points, torch.tensor([[[1]]])), target)
        loss[weight] = torch.autograd.grad(value, logits)[0]
    moved = (loss[1.0] - loss[0.0])[0, 0, 0].abs() > 1e-6  # of mask 0; the best of the others may be another one
    assert moved.nonzero().tolist() == [[2, 5]]


def test_with_a_mask_for_each_class_only_that_mask_learns_and_an_absent_class_counts():
    logits, iou, target = random_case()
    target[0, 2] = 0  # a class that is not on the image
    target[1] = 0  # padding
    PromptedMaskLoss(dice_loss(), layout=LAYOUT)((logits, iou), target).backward()
    learns = [[[bool(logits.grad[b, q, m].any()) for m in range(4)] for q in range(3)] for b in range(2)]
    assert learns == [[[m == 1 + q for m in range(4)] for q in range(3)], [[False] * 4] * 3]
    expected = []
    for q in range(3):
        error = (iou[0, q, 1 + q].item() - iou_by_hand(logits[0, q, 1 + q], target[0, q])) ** 2
        expected.append(dice_by_hand(logits[0, q, 1 + q], target[0, q]) + error)
    found = PromptedMaskLoss(dice_loss(), layout=LAYOUT)((logits, iou), target)
    assert found.item() == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize(("label", "is_lost"), [(1, True), (4, False)], ids=["its own", "shared"])
@pytest.mark.parametrize("xy", [(2.0, 3.0), (6.0, 1.0)], ids=["inside", "outside"])
def test_a_click_shared_by_classes_wants_of_each_what_its_target_says(label, is_lost, xy):
    """One click on a disc beside its cup taught the cup to be there: 4.00 for perfect masks."""
    target = torch.stack([torch.ones(8, 8), square(), square(height=2)])[None]
    logits = as_logits(target)[:, :, None].expand(-1, -1, 4, -1, -1).clone().requires_grad_()
    points = ((torch.tensor(xy) + 0.5) / 8).expand(1, 3, 1, 2)
    labels = torch.tensor([1, label, label]).view(1, 3, 1)
    loss = PromptedMaskLoss(dice_loss(), layout=LAYOUT)((logits, torch.ones(1, 3, 4), points, labels), target)
    assert (loss.item() > 1) == (is_lost and xy == (6.0, 1.0))
    loss.backward()
    x, y = map(int, xy)
    assert (logits.grad[0, 2, 3, y, x] < -0.1).item() == (is_lost and xy == (6.0, 1.0))  # the cup was pushed up there


def test_a_coarser_grid_scores_the_mean_of_the_targets_pixels():
    logits, iou, _ = random_case(images=1, objects=2)
    fine = torch.zeros(1, 2, 16, 16)
    fine[:, :, 4:13, 2:9] = 1
    coarse = torch.nn.functional.avg_pool2d(fine, 2)
    loss, half = (PromptedMaskLoss(dice_loss(), grid=grid) for grid in (1.0, 0.5))
    torch.testing.assert_close(half((logits, iou), fine), loss((logits, iou), coarse))
