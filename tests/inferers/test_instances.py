# SPDX-License-Identifier: Apache-2.0
"""Masks become instances: how stable they are, which of two that overlap stays, and how they are numbered."""

import numpy as np
import pytest
import torch

from scripts.inferers.instances import MaskCandidate, number_instances, pairwise_iou, stability_score, suppress

CLICK = (np.zeros((1, 2), np.float32), np.array([1]))
GRID = (10, 12)  # H, W


def found(x0, y0, x1, y1, iou=0.8, stability=1.0):
    mask = np.zeros(GRID, bool)
    mask[y0:y1, x0:x1] = True
    return MaskCandidate(CLICK, np.flatnonzero(mask), iou, stability)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[9.0, 9.0, -9.0, -9.0]], 1.0),
        ([[9.0, 0.5, -0.5, -9.0]], 1 / 3),  # one above 1, three above -1
        ([[0.5, 0.5, -0.5, -9.0]], 0.0),
        ([[-9.0, -9.0, -9.0, -9.0]], 0.0),
    ],
)
def test_stability_is_the_iou_of_two_thresholds(logits, expected):
    assert stability_score(torch.tensor([logits])).tolist() == pytest.approx([expected])


def test_iou_of_masks_is_that_of_their_pixels():
    rng = np.random.default_rng(0)
    masks = rng.random((7, *GRID)) < 0.4
    iou = pairwise_iou([np.flatnonzero(mask) for mask in masks])
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(iou, expected)


@pytest.mark.parametrize(("threshold", "left"), [(0.2, [0, 2]), (0.6, [0, 1, 2])])
def test_of_masks_that_overlap_the_best_stays(threshold, left):
    masks = [found(0, 0, 4, 4, 0.9), found(0, 0, 4, 8, 0.8), found(6, 0, 9, 9, 0.7)]  # the first two by one half
    kept = suppress([masks[2], masks[1], masks[0]], threshold)
    assert [masks.index(each) for each in kept] == left


def test_score_is_predicted_iou_times_stability():
    sure, stable = found(0, 0, 4, 4, 0.9, 0.5), found(0, 0, 4, 4, 0.7, 0.9)
    assert suppress([sure, stable], 0.5) == [stable]
    assert suppress([], 0.5) == []


def test_better_masks_lie_on_top_and_what_is_left_too_small_goes():
    masks = [found(0, 0, 4, 4), found(0, 0, 5, 4), found(3, 3, 8, 8)]  # 4 pixels are left of the second
    labels, entries = number_instances(masks, GRID, min_area=5)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[:4, :4] == 1).all()
    assert labels[3, 4] == 2
    assert [(entry["area"], entry["box"]) for entry in entries] == [(16, [0, 0, 3, 3]), (24, [3, 3, 7, 7])]
    labels, entries = number_instances(masks, GRID, min_area=1)
    assert [entry["area"] for entry in entries] == [16, 4, 23]


def test_nothing_found_is_an_empty_map():
    labels, entries = number_instances([], GRID, 1)
    assert labels.shape == GRID
    assert not labels.any()
    assert entries == []
