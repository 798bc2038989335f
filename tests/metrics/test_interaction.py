# SPDX-License-Identifier: Apache-2.0
"""Numbers of clicks, failures, obeyed background clicks and errors of the predicted IoU, by hand."""

import math

import pytest
import torch
from ignite.engine import Engine
from monai.metrics import MAEMetric

from scripts.metrics import (
    BackgroundFlips,
    ClickCurveArea,
    ClickFailures,
    NumberOfClicks,
    ObjectMetric,
    SelectClickTrace,
    SelectPredictedIoU,
)

TRACES = [[0.95, 0.2, 0.3, 0.4], [0.1, 0.86, 0.8, 0.91], [0.1, 0.2, 0.9, 0.3], [0.1, 0.2, 0.3, 0.4]]
FLIPS = [[-1, 1, 0, 1], [-1, -1, -1, -1], [-1, 0, -1, 0], [-1, 1, -1, -1]]


def outputs(batches=((0, 2), (2, 4))):
    """A decollated item for each range of objects, and between them one of everything, which nobody clicks at."""
    items = [{"pred": {"trace": torch.tensor(TRACES[a:b]), "flips": torch.tensor(FLIPS[a:b])}} for a, b in batches]
    return [items[0], {"pred": {}}, *items[1:]]


def measure(metric, transform, items=None):
    """Score items one at a time in an engine; give the mean and the value of each object."""
    engine = Engine(lambda engine, item: [item])
    ObjectMetric(metric, output_transform=transform).attach(engine, "measured")
    engine.run(outputs() if items is None else items)
    return engine.state.metrics["measured"], engine.state.metric_details["measured"].flatten().tolist()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (NumberOfClicks(0.9), [1, 4, 3, 4]),  # reached at once, with the last, just reached, never
        (NumberOfClicks(0.85), [1, 2, 3, 4]),
        (ClickFailures(0.9), [0, 0, 0, 1]),
        (ClickFailures(0.92), [0, 1, 1, 1]),
    ],
)
def test_clicks_are_counted_until_the_mask_is_good_for_the_first_time(metric, expected):
    mean, values = measure(metric, SelectClickTrace())
    assert values == expected
    assert mean == pytest.approx(sum(expected) / 4)


def test_obeyed_background_clicks_are_a_share_of_all_such_clicks():
    share, _ = measure(BackgroundFlips(), SelectClickTrace("flips"))
    assert share == pytest.approx(3 / 6)


def test_no_background_click_at_all_is_no_score_rather_than_zero():
    share, _ = measure(BackgroundFlips(), SelectClickTrace("flips"), outputs([(1, 2)]))
    assert math.isnan(share)


@pytest.mark.parametrize("metric", [NumberOfClicks, ClickFailures])
@pytest.mark.parametrize("iou", [0, -0.5, 1.01, 90])
def test_an_iou_that_is_none_is_refused(metric, iou):
    with pytest.raises(ValueError, match=f"iou is above 0 and at most 1, got {iou}"):
        metric(iou)


@pytest.mark.parametrize("metric", [NumberOfClicks(), BackgroundFlips()], ids=["clicks", "flips"])
def test_nothing_scored_is_no_score(metric):
    with pytest.raises(ValueError, match="no object was scored"):
        metric.aggregate()


def test_the_error_of_the_predicted_iou_is_that_of_its_own_kind_and_object():
    label = torch.zeros(2, 4, 4)
    label[0, :2], label[1, :1] = 1, 1
    logits = {"click_1": torch.where(label > 0, 3.0, -3.0), "box": torch.full((2, 4, 4), -3.0)}
    logits["click_1"][1, 1] = 3.0  # object 1 with twice its rows: IoU 1/2
    iou = {"click_1": torch.tensor([0.75, 0.875]), "box": torch.tensor([0.25, 0.0])}
    everything = {"pred": {"masks": {"whole": logits["box"]}, "iou": {"whole": iou["box"]}}, "label": label}
    items = [everything, {"pred": {"masks": logits, "iou": iou}, "label": label}]
    for kind, expected in {"click_1": [0.25, 0.375], "box": [0.25, 0]}.items():
        mean, values = measure(MAEMetric(), SelectPredictedIoU(kind), items)
        assert values == pytest.approx(expected)
        assert mean == pytest.approx(sum(expected) / 2)


def test_the_area_is_that_under_dice_over_the_clicks_after_the_box():
    dice = torch.tensor([[0.5, 0.7, 0.9, 0.9, 1.0], [1.0] * 5, [0.0] * 5])
    items = [{"pred": {"box_trace": dice / (2 - dice)}}]  # IoU
    mean, values = measure(ClickCurveArea(), SelectClickTrace("box_trace"), items)
    assert values == pytest.approx([0.6 + 0.8 + 0.9 + 0.95, 4, 0])
    assert mean == pytest.approx(sum(values) / 3)
