# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: a row for each object, and means over objects and over images by hand."""

import csv
import json

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler
from monai.metrics import DiceMetric

from scripts.handlers import MetricsReport
from scripts.metrics import OfPrompt

KINDS = ("click_1", "box")
SIZE = 8
CASES = [  # image, slice, name and (rows of the truth, of the answer to a click, to a box) of objects
    ("a.png", 0, {"cell": (4, 4, 2), "nucleus": (2, 6, 2)}),
    ("b.nii.gz", 3, {"1": (4, 1, 4)}),
    ("b.nii.gz", 5, {"1": (0, 0, 3)}),
]
DICE = {  # 2 * common rows / all rows; two empty masks score 1
    "dice/click_1": [1, 4 / 8, 2 / 5, 1],
    "dice/box": [4 / 6, 1, 1, 0],
}


def rows(count):
    mask = torch.zeros(SIZE, SIZE)
    mask[:count] = 1
    return mask


def evaluate(folder, runs=1, cases=CASES):
    """Evaluate made-up predictions; give metrics.json and the rows of metrics.csv."""
    data = []
    for image, slice_index, objects in cases:
        truths, *predicted = zip(*objects.values())
        data.append({
            "image": torch.stack([rows(n) for kind in predicted for n in kind]),
            "label": torch.stack([rows(n) for n in truths]),
            "case": json.dumps({"image": image, "slice": slice_index, "objects": list(objects)}),
        })  # fmt: skip

    def dice(kind):
        return IgniteMetricHandler(DiceMetric(ignore_empty=False), output_transform=OfPrompt(kind, KINDS))

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=1),
        network=torch.nn.Identity(),
        key_val_metric={"dice/click_1": dice("click_1")},
        additional_metrics={"dice/box": dice("box")},
        val_handlers=[MetricsReport(str(folder / "report"))],
    )
    evaluator.state.metrics["text"] = "not a number"
    for epoch in range(1, runs + 1):
        evaluator.run(epoch)
    with open(folder / "report" / "metrics.csv", newline="") as file:
        return json.loads((folder / "report" / "metrics.json").read_text()), list(csv.DictReader(file))


def test_a_row_for_each_object_in_order(tmp_path):
    _, table = evaluate(tmp_path)
    assert list(table[0]) == ["image", "slice", "object", "dice/click_1", "dice/box"]
    assert [(row["image"], row["slice"], row["object"]) for row in table] == [
        ("a.png", "0", "cell"),
        ("a.png", "0", "nucleus"),
        ("b.nii.gz", "3", "1"),
        ("b.nii.gz", "5", "1"),
    ]
    for name, expected in DICE.items():
        assert [float(row[name]) for row in table] == pytest.approx(expected, abs=1e-6)


def test_means_over_objects_and_over_images(tmp_path):
    report, _ = evaluate(tmp_path)
    for name, values in DICE.items():
        assert report[name] == pytest.approx(sum(values) / 4, abs=1e-6)
        by_image = ((values[0] + values[1]) / 2 + (values[2] + values[3]) / 2) / 2  # slices of b.nii.gz are one image
        assert report[name.replace("dice", "dice_by_image")] == pytest.approx(by_image, abs=1e-6)
    assert (report["objects"], report["images"]) == (4, 2)
    assert "text" not in report


def test_the_two_means_differ_where_images_hold_different_numbers_of_objects(tmp_path):
    report, _ = evaluate(tmp_path, cases=CASES[:2])
    assert report["dice/click_1"] == pytest.approx((1 + 1 / 2 + 2 / 5) / 3, abs=1e-6)
    assert report["dice_by_image/click_1"] == pytest.approx((3 / 4 + 2 / 5) / 2, abs=1e-6)


def test_a_second_evaluation_starts_anew(tmp_path):
    once, twice = evaluate(tmp_path / "once"), evaluate(tmp_path / "twice", runs=2)
    assert once == twice


def test_the_log_shows_the_means(tmp_path, caplog):
    with caplog.at_level("INFO"):
        evaluate(tmp_path)
    (message,) = [record.getMessage() for record in caplog.records if "metrics.json" in record.getMessage()]
    assert f"{sum(DICE['dice/box']) / 4:.4f}" in message
    assert "dice_by_image/click_1" in message
