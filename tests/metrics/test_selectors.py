# SPDX-License-Identifier: Apache-2.0
"""Each kind of prompt is scored by itself, object by object, by MONAI's own metrics inside an engine."""

import math

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.metrics import DiceMetric, MeanIoU

from scripts.metrics import ObjectMetric, SelectPromptKind, ThresholdAverage
from scripts.metrics.factory import OF_KIND

SIZE = 8


def rows(count):
    """A (SIZE, SIZE) mask whose first rows are set."""
    mask = torch.zeros(SIZE, SIZE)
    mask[:count] = 1
    return mask


def case(truth, predicted):
    """An image whose Q objects have ``truth[q]`` rows, and are predicted with ``predicted[kind][q]`` rows."""
    logits = {kind: torch.stack([4 * rows(n) - 2 for n in counts]) for kind, counts in predicted.items()}
    return {"image": logits, "label": torch.stack([rows(n) for n in truth]).byte()}


CASES = [
    case([4, 2], {"click_1": [4, 4], "box": [2, 2]}),
    case([5], {"whole": [8]}),  # everything on that image
    case([6], {"click_1": [3], "box": [6]}),
    case([0], {"click_1": [0], "box": [2]}),
]
DICE = {  # by hand, one entry for each object: 2 * common rows / all rows, 1 for two empty masks
    "click_1": [1, 4 / 6, 6 / 9, 1],
    "box": [4 / 6, 1, 1, 0],
    "whole": [10 / 13],
}


def outputs(cases=CASES):
    return [{"pred": {"masks": c["image"]}, "label": c["label"]} for c in cases]


@pytest.mark.parametrize("kind", DICE)
def test_objects_of_one_kind_of_prompt_come_in_order(kind):
    predictions, labels = SelectPromptKind(kind)(outputs())
    asked = [c for c in CASES if kind in c["image"]]
    for found, whole in ((predictions, [c["image"][kind] > 0 for c in asked]), (labels, [c["label"] for c in asked])):
        # all objects lie at the first row and column, so that what was cut away is below and to the right
        padded = [torch.nn.functional.pad(m, (0, SIZE - m.shape[2], 0, SIZE - m.shape[1])) for m in found]
        assert torch.equal(torch.cat(padded), torch.cat(whole).float())


@pytest.mark.parametrize("shape", [(40, 30), (20, 16, 12)])
@pytest.mark.parametrize("metric", ["dice", "iou", "nsd"])
def test_masks_are_scored_where_they_are_as_on_the_whole_grid(metric, shape):
    score = OF_KIND[metric][0]()
    coarse = torch.randn(6, *(n // 4 for n in shape), generator=torch.Generator().manual_seed(3))
    masks = torch.nn.functional.interpolate(coarse[:, None], shape)[:, 0] - 1.2
    masks[:, :6] = -1  # and others touch the edges of the picture
    masks[4:] = -1  # two empty ones
    predicted, label = masks[[0, 1, 2, 4]], (masks[[1, 2, 3, 5]] > 0).byte()
    assert (predicted > 0).any(-1)[:3].any() and all(label[:3].flatten(1).any(1))
    pairs = SelectPromptKind("box")([{"pred": {"masks": {"box": predicted}}, "label": label}])
    assert all(mask.shape[1] < shape[0] for mask in pairs[0])
    found = torch.cat([score(one[None], other[None]) for one, other in zip(*pairs)])
    expected = score((predicted > 0).float()[:, None], label.float()[:, None])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_probabilities_and_soft_labels_stay_as_they_are():
    output = [{"pred": {"masks": {"box": torch.full((1, 2, 2), 1.0)}}, "label": torch.full((1, 2, 2), 0.7)}]
    for probability, prediction, label in ((False, 1.0, 1.0), (True, 0.7310586, 0.7)):
        predictions, labels = SelectPromptKind("box", probability)(output)
        assert predictions[0].unique().tolist() == pytest.approx([prediction])
        assert labels[0].unique().tolist() == pytest.approx([label])


class Given(torch.nn.Module):
    """Predict what the case holds in place of an image."""

    def forward(self, image):
        return {"masks": image}


def score(metrics, cases=CASES):
    """Run an evaluator whose network gives the cases' own predictions back."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=1),
        network=Given(),
        prepare_batch=lambda batch, device, non_blocking, **kwargs: (batch["image"], batch["label"]),
        key_val_metric=metrics,
    )
    details = {}

    @evaluator.on(Events.EPOCH_COMPLETED)
    def keep(engine):
        details.update({name: values.flatten().tolist() for name, values in engine.state.metric_details.items()})

    evaluator.run()
    return evaluator.state.metrics, details


def handler(metric, kind, probability=False):
    return ObjectMetric(metric, output_transform=SelectPromptKind(kind, probability))


def test_an_engine_scores_each_kind_by_itself_and_each_object_once():
    metrics, details = score({
        **{f"dice/{kind}": handler(DiceMetric(ignore_empty=False), kind) for kind in DICE},
        **{f"iou/{kind}": handler(MeanIoU(ignore_empty=False), kind) for kind in DICE},
        "threshold/click_1": handler(ThresholdAverage("dice", SIZE), "click_1", probability=True),
    })  # fmt: skip
    for kind, expected in DICE.items():
        assert details[f"dice/{kind}"] == pytest.approx(expected, abs=1e-6)
        assert metrics[f"dice/{kind}"] == pytest.approx(sum(expected) / len(expected), abs=1e-6)
        iou = [d / (2 - d) for d in expected]
        assert details[f"iou/{kind}"] == pytest.approx(iou, abs=1e-6)
        assert metrics[f"iou/{kind}"] == pytest.approx(sum(iou) / len(iou), abs=1e-6)
    # sigmoid(2) = 0.88 passes four of five thresholds and sigmoid(-2) = 0.12 one, which takes in the whole picture
    four = torch.tensor(DICE["click_1"])
    truth = torch.tensor([4, 2, 6, 0])
    whole = 2 * truth / (SIZE + truth)  # at 0.1
    empty = torch.tensor([0.0, 0.0, 0.0, 1.0])  # at 0.9 nothing passes
    expected = ((3 * four + whole + empty) / 5).tolist()
    assert details["threshold/click_1"] == pytest.approx(expected, abs=1e-4)


def test_a_kind_that_was_never_asked_has_no_score():
    metrics, details = score({"dice/click_7": handler(DiceMetric(), "click_7")})
    assert math.isnan(metrics["dice/click_7"])
    assert "dice/click_7" not in details
