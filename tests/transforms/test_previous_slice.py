# SPDX-License-Identifier: Apache-2.0
"""Objects of a volume are asked for by their masks on the slice beside, also where they have ended."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.prompts.crops import SmallObjectCropper
from scripts.prompts.form import PADDING
from scripts.transforms import RandObjectMasksd, RandPreviousSliced, RandPromptsd, UprightSliced
from scripts.transforms.previous_slice import waver

SIZE = 32
LABEL = MetaTensor(torch.zeros(1, SIZE, SIZE, 5, dtype=torch.int32))  # (1, X, Y, Z)
LABEL[0, 4:12, 6:20, 1:4] = 1
LABEL[0, 18:30, 4:16, 2:3] = 2
IMAGE = LABEL.float().expand(3, *LABEL.shape[1:])


def item(k, objects, **more):
    return {"image": IMAGE, "label": LABEL, "slice": k, "objects": objects, "neighbours": True, **more}


def pipeline(prob=1.0, crop=None, seed=0, **settings):
    kinds = {"click_1": 0.5, "previous_slice": 0.5}
    masks = RandObjectMasksd(4, crop=crop, crop_prob=1.0, **settings)
    steps = [UprightSliced(), RandPreviousSliced(prob), masks, RandPromptsd(kinds)]
    return Compose(steps).set_random_state(seed)


def test_a_slice_of_a_volume_comes_with_the_labels_beside_it():
    first, last = (UprightSliced()(item(k, [[1]]))["label"] for k in (0, 4))
    assert first.shape == (3, SIZE, SIZE) and not first[:2].any() and (first[2] == LABEL[0, ..., 1].T).all()
    assert (last[1] == LABEL[0, ..., 3].T).all() and not last[2].any()
    plain = UprightSliced()({**item(2, [[1]]), "neighbours": False})
    assert plain["label"].shape == (1, SIZE, SIZE) and "neighbours" not in plain


@pytest.mark.parametrize("seed", range(6))
def test_an_object_that_goes_on_is_asked_for_by_its_mask_beside(seed):
    result = pipeline(seed=seed)(item(2, [[1], [2]]))
    assert result["label"].shape == result["previous"].shape == (1, SIZE, SIZE)  # 2 is on no slice beside
    assert (np.asarray(result["label"][0]) == (LABEL[0, ..., 2].T == 1).numpy()).all()
    x, y = result["points"][0, (result["point_labels"][0] != PADDING)].mean(0).tolist()
    assert 4 <= x <= 12 and 6 <= y <= 20
    assert {"carried", "before", "ends", "whole"}.isdisjoint(result)


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_an_object_that_has_ended_is_asked_for_in_vain(prob):
    result = pipeline(prob)(item(4, [[1]], ends=True))
    assert not result["label"].any() and (result["point_labels"] != PADDING).any()


def test_masks_are_shown_or_not_exactly_or_roughly():
    shown = [pipeline(seed=seed)(item(2, [[1]]))["previous"][0] for seed in range(40)]
    truth = LABEL[0, ..., 1].T == 1
    exact = [torch.equal(mask > 0, truth) for mask in shown]
    empty = [not mask.any() for mask in shown]
    assert 5 < sum(exact) < 30 and 3 < sum(empty) < 20 and sum(exact) + sum(empty) < 40


def test_pictures_and_slices_that_are_not_chosen_are_asked_for_as_ever():
    result = pipeline(0.0)(item(2, [[1], [2]]))
    assert result["label"].shape == (2, SIZE, SIZE) and not result["previous"].any()
    assert result["previous"].shape == result["label"].shape
    picture = {"image": IMAGE[..., 2], "label": LABEL[..., 2], "slice": 0, "objects": [[1]]}
    assert pipeline(1.0)(picture)["label"].shape == (1, SIZE, SIZE)


def test_a_crop_is_around_the_mask_beside():
    crop = SmallObjectCropper(SIZE, below=20, context=1.5, min_side=8)
    result = pipeline(crop=crop, seed=3)(item(4, [[1]], ends=True))
    height, width = result["label"].shape[1:]
    assert result["image"].shape[1:] == (height, width) and height < SIZE


def test_a_border_wavers_about_its_place():
    mask = np.zeros((64, 64), bool)
    mask[20:44, 16:50] = True
    rng = np.random.RandomState(0)
    ious = []
    for _ in range(20):
        moved = waver(mask, rng)
        ious.append((moved & mask).sum() / (moved | mask).sum())
        assert not moved[:4].any()
    assert 0.6 < min(ious) < 0.95 and max(ious) < 1
    assert not waver(np.zeros((5, 5), bool), rng).any()


def test_a_kind_of_prompt_of_its_own_is_needed_beside():
    with pytest.raises(ValueError, match="give a kind beside previous_slice"):
        RandPromptsd({"previous_slice": 1.0})


def test_pictures_share_what_volumes_have_of_their_own():
    assert RandPromptsd({"click_1": 0.4, "box": 0.4, "previous_slice": 0.2}).kinds == {"click_1": 0.5, "box": 0.5}
