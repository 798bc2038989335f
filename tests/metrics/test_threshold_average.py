# SPDX-License-Identifier: Apache-2.0
"""The metric of the published tables: the reference implementation's own numbers, empty masks, and resizing by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.metrics import ThresholdAverage

CASES = Path(__file__).parent / "fixtures" / "reference_cases.npz"
REFERENCE = [  # IoU of each channel, then Dice of each, that Medical-SAM-Adapter's eval_seg gave for the fixture
    (0.349643667, 0.517022121),
    (0.203198494, 0.309207258),
    (0.232085362, 0.278342131, 0.373977506, 0.431251645),
    (0.299392733, 0.418103385),
]


def score(measure, probability, target, size):
    """Score (B, 1, H, W) as one batch."""
    metric = ThresholdAverage(measure, size)
    metric(probability, target)
    return metric.aggregate().item()


def read_case(index):
    """Probabilities (B, C, 48, 48) that pass as many thresholds as the reference's did, and targets in 0, 0.5 and 1."""
    with np.load(CASES) as arrays:
        passed, target = arrays[f"passed_{index}"], arrays[f"target_{index}"]
    return torch.from_numpy(passed * np.float32(0.2)), torch.from_numpy(target * np.float32(0.5))


@pytest.mark.parametrize("index", range(len(REFERENCE)), ids=["one", "batch_of_three", "two_channels", "two_raters"])
def test_scores_equal_the_reference_implementation(index):
    probability, target = read_case(index)
    found = [
        score(measure, probability[:, c : c + 1], target[:, c : c + 1], size=48)
        for measure in ("iou", "dice")
        for c in range(probability.shape[1])
    ]
    assert found == pytest.approx(REFERENCE[index], abs=1e-6)


def test_cases_of_all_batches_weigh_the_same():
    probability, target = read_case(1)
    metric = ThresholdAverage("dice", size=48)
    metric(probability[:2], target[:2])
    metric(list(probability[2:]), list(target[2:]))  # as a handler gives it: a list of (1, H, W)
    assert metric.aggregate().item() == pytest.approx(REFERENCE[1][1], abs=1e-6)
    assert metric.get_buffer().shape == (3, 1)


@pytest.mark.parametrize("measure", ["dice", "iou"])
@pytest.mark.parametrize(("predicted", "true", "expected"), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_two_empty_masks_score_one_and_one_empty_mask_scores_nothing(measure, predicted, true, expected):
    probability, target = (torch.full((1, 1, 16, 16), float(value)) for value in (predicted, true))
    assert score(measure, probability, target, size=16) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("measure", "at_lowest_threshold"), [("iou", 1 / 2), ("dice", 2 / 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_both_are_resized_with_antialiasing_and_a_binary_target_is_cut_at_a_half(measure, at_lowest_threshold, dtype):
    """Columns 1 1 0 0 become 6/7 and 1/7: the left one passes four thresholds of five, the right one passes one."""
    columns = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 4, 4)
    by_hand = (at_lowest_threshold + 3 * 1 + 0) / 5
    assert score(measure, columns, columns.to(dtype), size=2) == pytest.approx(by_hand, abs=1e-4)


def test_images_of_different_sizes_are_scored_on_one_grid():
    metric = ThresholdAverage("iou", size=32)
    for height, width in ((64, 96), (32, 32), (20, 48)):
        mask = torch.zeros(1, height, width)
        mask[:, : height // 2] = 1
        metric([mask], [1 - mask])
        metric([mask], [mask])
    scores = metric.get_buffer().flatten().tolist()
    assert scores[0::2] == pytest.approx([0] * 3, abs=0.1)
    assert all(value > 0.9 for value in scores[1::2])


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="measure is dice or iou, got 'jaccard'"):
        ThresholdAverage("jaccard")


def test_nothing_scored_is_no_score():
    with pytest.raises(ValueError, match="no case was scored"):
        ThresholdAverage("dice").aggregate()
