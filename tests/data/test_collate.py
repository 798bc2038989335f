# SPDX-License-Identifier: Apache-2.0
"""Batches of images with different numbers of objects: what is there stays, what is missing asks for nothing."""

import pytest
import torch
from monai.losses import DiceFocalLoss

from scripts.data import pad_objects
from scripts.losses import PromptedMaskLoss

SIZE = 8


def item(count, seed=0, dtype=torch.uint8):
    """An image that asks for so many objects, each by a click and a box."""
    torch.manual_seed(seed)
    masks = torch.rand(count, SIZE, SIZE)
    return {
        "image": torch.rand(3, SIZE, SIZE),
        "label": (masks > 0.5).to(dtype) if dtype == torch.uint8 else masks,
        "points": torch.rand(count, 3, 2),
        "point_labels": torch.tensor([[1, 2, 3]] * count),
        "case": f"case {seed}",
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["binary", "soft"])
@pytest.mark.parametrize("counts", [(1, 3, 2), (2, 2), (4,)])
def test_objects_come_first_and_padding_behind_them(counts, dtype):
    items = [item(count, seed, dtype) for seed, count in enumerate(counts)]
    batch = pad_objects(items)
    shape = (len(counts), max(counts))
    assert batch["label"].shape == (*shape, SIZE, SIZE)
    assert batch["points"].shape == (*shape, 3, 2)
    assert batch["point_labels"].shape == (*shape, 3)
    for b, (one, count) in enumerate(zip(items, counts)):
        for key, padding in (("label", 0), ("points", -1), ("point_labels", -1)):
            assert batch[key].dtype == one[key].dtype
            assert torch.equal(batch[key][b, :count], one[key])
            assert (batch[key][b, count:] == padding).all()


def test_other_keys_collate_as_they_are():
    items = [item(1, 0), item(2, 1)]
    batch = pad_objects(items)
    assert torch.equal(batch["image"], torch.stack([one["image"] for one in items]))
    assert batch["case"] == ["case 0", "case 1"]


def test_items_stay_as_they_were():
    items = [item(1), item(3)]
    pad_objects(items)
    assert [len(one[key]) for one in items for key in ("label", "points", "point_labels")] == [1] * 3 + [3] * 3


def test_items_without_prompts_are_padded_too():
    items = [{"label": item(count)["label"]} for count in (1, 2)]
    assert pad_objects(items).keys() == {"label"}


def test_padding_changes_no_loss():
    loss = PromptedMaskLoss(DiceFocalLoss(sigmoid=True, reduction="none"))
    alone, padded = (pad_objects(items)["label"][:1] for items in ([item(2)], [item(2), item(5, 1)]))
    torch.manual_seed(0)
    logits, iou = torch.randn(1, 5, 4, SIZE, SIZE), torch.rand(1, 5, 4)
    assert torch.isclose(loss((logits, iou), padded), loss((logits[:, :2], iou[:, :2]), alone))
