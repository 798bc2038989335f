# SPDX-License-Identifier: Apache-2.0
"""Each kind of prompt is scored by itself, object by object, by MONAI's own metrics inside an engine."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler
from monai.metrics import DiceMetric, MeanIoU

from scripts.metrics import OfPrompt, ThresholdAverage

KINDS = ("click_1", "box", "box_jittered")
SIZE = 8


def rows(count):
    """A (SIZE, SIZE) mask whose first rows are set."""
    mask = torch.zeros(SIZE, SIZE)
    mask[:count] = 1
    return mask


def case(truth, predicted):
    """An image whose Q objects have ``truth[q]`` rows, and are predicted with ``predicted[kind][q]`` rows."""
    return {
        "image": torch.stack([rows(n) for kind in KINDS for n in predicted[kind]]),  # (K * Q, H, W)
        "label": torch.stack([rows(n) for n in truth]).byte(),
    }


CASES = [
    case([4, 2], {"click_1": [4, 4], "box": [2, 2], "box_jittered": [8, 0]}),
    case([6], {"click_1": [3], "box": [6], "box_jittered": [0]}),
    case([0], {"click_1": [0], "box": [2], "box_jittered": [0]}),
]
DICE = {  # by hand, one entry for each object: 2 * common rows / all rows, 1 for two empty masks
    "click_1": [1, 4 / 6, 6 / 9, 1],
    "box": [4 / 6, 1, 1, 0],
    "box_jittered": [8 / 12, 0, 0, 1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_one_kind_of_prompt_come_in_order(kind):
    predictions, labels = OfPrompt(kind, KINDS)([{"pred": c["image"], "label": c["label"]} for c in CASES])
    k, expected = KINDS.index(kind), []
    for c in CASES:
        objects = len(c["label"])
        expected += [c["image"][k * objects + q] for q in range(objects)]
    assert all(mask.shape == (1, SIZE, SIZE) for mask in predictions + labels)
    assert torch.equal(torch.cat(predictions), torch.stack(expected))
    assert torch.equal(torch.cat(labels), torch.cat([c["label"] for c in CASES]))


def test_another_key_of_the_output_can_be_scored():
    output = [{"pred": torch.zeros(2, 4, 4), "probability": torch.full((2, 4, 4), 0.3), "label": torch.ones(1, 4, 4)}]
    predictions, _ = OfPrompt("box", ("click_1", "box"), key="probability")(output)
    assert torch.equal(predictions[0], torch.full((1, 4, 4), 0.3))


def test_a_kind_that_was_not_asked_is_refused():
    with pytest.raises(ValueError, match="is not in list"):
        OfPrompt("click_5", KINDS)


def score(metrics):
    """Run an evaluator whose network gives the cases' own predictions back."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(CASES), batch_size=1),
        network=torch.nn.Identity(),
        additional_metrics=metrics,
        key_val_metric={"unused": IgniteMetricHandler(DiceMetric(), output_transform=OfPrompt("box", KINDS))},
    )
    details = {}

    @evaluator.on(Events.EPOCH_COMPLETED)
    def keep(engine):
        details.update({name: values.flatten().tolist() for name, values in engine.state.metric_details.items()})

    evaluator.run()
    return evaluator.state.metrics, details


def handler(metric, kind):
    return IgniteMetricHandler(metric, output_transform=OfPrompt(kind, KINDS))


def test_an_engine_scores_each_kind_by_itself_and_each_object_once():
    metrics, details = score({
        **{f"dice/{kind}": handler(DiceMetric(ignore_empty=False), kind) for kind in KINDS},
        **{f"iou/{kind}": handler(MeanIoU(ignore_empty=False), kind) for kind in KINDS},
        "threshold/click_1": handler(ThresholdAverage("dice", SIZE), "click_1"),
    })  # fmt: skip
    for kind, expected in DICE.items():
        assert details[f"dice/{kind}"] == pytest.approx(expected, abs=1e-6)
        assert metrics[f"dice/{kind}"] == pytest.approx(sum(expected) / 4, abs=1e-6)
        iou = [d / (2 - d) for d in expected]
        assert details[f"iou/{kind}"] == pytest.approx(iou, abs=1e-6)
        assert metrics[f"iou/{kind}"] == pytest.approx(sum(iou) / 4, abs=1e-6)
    assert details["threshold/click_1"] == pytest.approx(DICE["click_1"], abs=1e-4)
