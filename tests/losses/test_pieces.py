# SPDX-License-Identifier: Apache-2.0
"""A sum in pieces has the value and the gradients of the whole, and keeps nothing of what was computed on its way."""

import weakref

import pytest
import torch
from monai.losses import DiceFocalLoss

from scripts.losses import PromptedMaskLoss, mask_loss
from scripts.losses.pieces import sum_in_pieces


def score(x, y, given):
    """Something of each row that autograd has to keep much for."""
    return (torch.sigmoid(x).flatten(1).sum(1).exp() * y * given).sum()


def case(count=5):
    generator = torch.Generator().manual_seed(0)
    x, y, given = (torch.rand(count, *shape, generator=generator) for shape in ((3, 4), (), ()))
    return x.requires_grad_(), y.requires_grad_(), given


@pytest.mark.parametrize("length", [1, 2, 5, 100])
def test_value_and_gradients_are_those_of_the_whole(length):
    x, y, given = case()
    expected = torch.autograd.grad(3 * score(x, y, given), (x, y))
    total = sum_in_pieces(score, [x, y], [given], length)
    torch.testing.assert_close(total, score(x, y, given).detach())
    for found, wanted in zip(torch.autograd.grad(3 * total, (x, y)), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_without_gradients_none_are_computed():
    x, y, given = case()
    seen = []

    def watched(*arguments):
        seen.append(torch.is_grad_enabled())
        return score(*arguments)

    with torch.no_grad():
        assert not sum_in_pieces(watched, [x, y], [given], 2).requires_grad
    assert not sum_in_pieces(watched, [x.detach(), y.detach()], [given], 2).requires_grad
    assert seen == [False] * 6


def test_a_small_gradient_of_half_precision_is_not_lost_before_it_is_scaled():
    x = torch.ones(4, dtype=torch.float16, requires_grad=True)
    total = sum_in_pieces(lambda x: (1e-9 * x).sum(), [x], [], 2)  # below what float16 can hold
    (65536 * total).backward()
    assert x.grad.dtype == torch.float16
    torch.testing.assert_close(x.grad.float(), torch.full((4,), 65536e-9), rtol=1e-2, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_loss_of_masks_is_the_same_whatever_the_piece(monkeypatch, rows):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 8, 8, generator=generator).requires_grad_()
    iou = torch.rand(2, 3, 4, generator=generator).requires_grad_()
    target = (torch.rand(2, 3, 32, 32, generator=generator) > 0.6).float()
    target[1, 2] = 0  # padding
    clicks = torch.rand(2, 3, 2, 2, generator=generator), torch.ones(2, 3, 2, dtype=torch.long)
    clicks[1][1, 2] = -1
    loss = PromptedMaskLoss(DiceFocalLoss(sigmoid=True, reduction="none"), grid=0.5)
    found = {}
    for name, pixels in (("whole", 2**20), ("pieces", 4 * 16 * 16 * rows)):
        monkeypatch.setattr(mask_loss, "PIECE", pixels)
        value = loss((logits, iou, *clicks), target)
        found[name] = (value.detach(), *torch.autograd.grad(value, (logits, iou)))
    for whole, pieces in zip(found["whole"], found["pieces"], strict=True):
        torch.testing.assert_close(pieces, whole)


def test_nothing_as_large_as_the_targets_is_kept_for_the_backward_pass():
    logits, iou = torch.randn(1, 4, 4, 8, 8, requires_grad=True), torch.rand(1, 4, 4, requires_grad=True)
    kept = []

    def keep(tensor):
        kept.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = PromptedMaskLoss(DiceFocalLoss(sigmoid=True, reduction="none"))
        value = loss((logits, iou), torch.ones(1, 4, 64, 64))
    assert value.requires_grad and len(kept) > 10
    assert max(tensor.numel() for reference in kept if (tensor := reference()) is not None) <= logits.numel()
