# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: a row for each object, and means over objects, images, sizes and classes by hand."""

import csv
import itertools
import json
import math
import re

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.metrics import DiceMetric

from scripts.handlers import MetricsReport
from scripts.metrics import BackgroundFlips, ObjectMetric, SelectClickTrace, SelectPromptKind

SIZE = 8
CASES = [  # image, slice, name and (rows of the truth, of the answer to one and three clicks, to a box) of objects
    ("a.png", 0, {"cell": (4, 4, 4, 2), "nucleus": (2, 6, 2, 2)}),
    ("a.png", 0, {"everything": (4, 8)}),  # asked for by the whole image alone
    ("b.nii.gz", 3, {"cell": (3, 1, 2, 3)}),
    ("b.nii.gz", 3, {"everything": (3, 3)}),
    ("b.nii.gz", 5, {"nucleus": (1, 2, 1, 0)}),
]
DICE = {  # 2 * common rows / all rows
    "dice/click_1": [1, 4 / 8, 2 / 4, 2 / 3],
    "dice/click_3": [1, 1, 4 / 5, 1],
    "dice/box": [4 / 6, 1, 1, 0],
}
WHOLE = [8 / 12, 1]
FLIPS = [[-1, 1, 0], [-1, -1, -1], [-1, 1, 1], [-1, -1, -1]]
NAMES = [("a.png", 0, "cell"), ("a.png", 0, "nucleus"), ("b.nii.gz", 3, "cell"), ("b.nii.gz", 5, "nucleus")]


def logits(counts):
    """(Q, SIZE, SIZE) whose first rows are above 0."""
    return torch.stack([(torch.arange(SIZE) < n).float().unsqueeze(1).expand(SIZE, SIZE) - 0.5 for n in counts])


def item(image, slice_index, objects, flips, groups=None):
    truths, *predicted = zip(*objects.values())
    kinds = ["whole"] if "everything" in objects else ["click_1", "click_3", "box"]
    case = {"image": image, "slice": slice_index, "objects": list(objects), "areas": [SIZE * n for n in truths]}
    if groups:
        case["group"] = groups[image]
    pred = {"masks": {kind: logits(counts) for kind, counts in zip(kinds, predicted)}}
    if kinds != ["whole"]:
        pred["flips"] = torch.tensor([next(flips) for _ in objects])
    return {"image": pred, "label": (logits(truths) > 0).byte(), "case": json.dumps(case)}


def dice(kind):
    return ObjectMetric(DiceMetric(ignore_empty=False), output_transform=SelectPromptKind(kind))


def evaluate(folder, runs=1, cases=CASES, flips=FLIPS, without=(), groups=None):
    """Evaluate made-up predictions; give metrics.json and the rows of metrics.csv."""
    metrics = {name: dice(name.split("/")[1]) for name in [*DICE, "dice/whole"]}
    metrics["background_flips"] = ObjectMetric(BackgroundFlips(), output_transform=SelectClickTrace("flips"))
    given = itertools.cycle(flips)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([item(*case, given, groups) for case in cases]), batch_size=1),
        network=torch.nn.Identity(),
        prepare_batch=lambda batch, device, non_blocking, **kwargs: (batch["image"], batch["label"]),
        key_val_metric={name: metric for name, metric in metrics.items() if name not in without},
        val_handlers=[MetricsReport(str(folder / "report"))],
    )
    evaluator.state.metrics["text"] = "not a number"
    for epoch in range(1, runs + 1):
        evaluator.run(epoch)
    with open(folder / "report" / "metrics.csv", newline="") as file:
        return json.loads((folder / "report" / "metrics.json").read_text()), list(csv.DictReader(file))


def numbers(table, name):
    return [float(row[name]) if row[name] else None for row in table]


def test_a_row_for_each_object_and_each_item_of_everything_in_order(tmp_path):
    _, table = evaluate(tmp_path)
    assert list(table[0]) == ["image", "slice", "object", "area", *DICE, "dice/whole"]
    assert [(row["image"], int(row["slice"]), row["object"], int(row["area"])) for row in table] == [
        ("a.png", 0, "cell", 32),
        ("a.png", 0, "nucleus", 16),
        ("a.png", 0, "everything", 32),
        ("b.nii.gz", 3, "cell", 24),
        ("b.nii.gz", 3, "everything", 24),
        ("b.nii.gz", 5, "nucleus", 8),
    ]


def test_what_does_not_apply_is_blank_and_every_value_stays_with_its_object(tmp_path):
    _, table = evaluate(tmp_path)
    for name, values in DICE.items():
        objects = [value if value is None else pytest.approx(value, abs=1e-6) for value in values]
        assert numbers(table, name) == [objects[0], objects[1], None, objects[2], None, objects[3]]
    whole = [pytest.approx(value, abs=1e-6) for value in WHOLE]
    assert numbers(table, "dice/whole") == [None, None, whole[0], None, whole[1], None]


def test_as_many_objects_as_items_of_everything_are_not_mixed_up(tmp_path):
    cases = [("a.png", 0, {"1": (4, 4, 4, 2)}), ("a.png", 0, {"everything": (4, 8)})]
    _, table = evaluate(tmp_path, cases=cases)
    assert numbers(table, "dice/click_1") == [1, None]
    assert numbers(table, "dice/whole") == [None, pytest.approx(8 / 12, abs=1e-6)]


def test_means_over_objects_and_over_images(tmp_path):
    report, _ = evaluate(tmp_path)
    for name, values in DICE.items():
        assert report[name] == pytest.approx(sum(values) / 4, abs=1e-6)
        by_image = ((values[0] + values[1]) / 2 + (values[2] + values[3]) / 2) / 2  # slices of b.nii.gz are one image
        assert report[name.replace("dice", "dice_by_image")] == pytest.approx(by_image, abs=1e-6)
    assert report["dice/whole"] == pytest.approx(sum(WHOLE) / 2, abs=1e-6)
    assert report["background_flips"] == 0.75
    assert (report["objects"], report["images"]) == (4, 2)
    assert "text" not in report


def test_the_two_means_differ_where_images_hold_different_numbers_of_objects(tmp_path):
    report, _ = evaluate(tmp_path, cases=CASES[:4])
    assert report["dice/click_1"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3, abs=1e-6)
    assert report["dice_by_image/click_1"] == pytest.approx((3 / 4 + 1 / 2) / 2, abs=1e-6)


def test_means_over_classes(tmp_path):
    report, _ = evaluate(tmp_path)
    for name, values in DICE.items():
        assert report[f"{name}/cell"] == pytest.approx((values[0] + values[2]) / 2, abs=1e-6)
        assert report[f"{name}/nucleus"] == pytest.approx((values[1] + values[3]) / 2, abs=1e-6)
    assert not [name for name in report if name.endswith("/everything") or re.match("dice/whole/(cell|nucleus)", name)]


@pytest.mark.parametrize(("count", "classes"), [(1, 0), (2, 2), (10, 10), (11, 0)])
def test_more_names_than_ten_are_instances_and_one_says_nothing_of_its_own(tmp_path, count, classes):
    cases = [("a.png", 0, {f"object {i}": (4, 4, 4, 2) for i in range(count)}), CASES[1]]
    report, _ = evaluate(tmp_path, cases=cases)
    assert sum(name.startswith("dice/box/object") for name in report) == classes


def test_means_over_terciles_of_the_area_that_keep_equal_areas_together(tmp_path):
    areas = [1, 8, 3, 2, 8, 8, 4, 2, 3]  # rows; terciles 1 2 2, 3 3 4, 8 8 8
    boxes = {1: 0, 2: 2, 3: 1, 4: 4, 8: 2}
    objects = {str(i): (n, n, n, boxes[n]) for i, n in enumerate(areas)}
    report, _ = evaluate(tmp_path, cases=[("a.png", 0, objects), *CASES[1:2]])
    assert report["dice/box/small"] == pytest.approx((0 + 1 + 1) / 3, abs=1e-6)
    assert report["dice/box/medium"] == pytest.approx((2 / 4 + 2 / 4 + 1) / 3, abs=1e-6)
    assert report["dice/box/large"] == pytest.approx(4 / 10, abs=1e-6)
    assert (report["area_limit/small"], report["area_limit/medium"]) == (2 * SIZE, 4 * SIZE)


def test_everything_on_a_slice_has_terciles_of_its_own(tmp_path):
    report, _ = evaluate(tmp_path, cases=[*CASES, ("c.png", 0, {"everything": (7, 0)})])
    assert [report[f"dice/whole/{size}"] for size in ("small", "medium", "large")] == pytest.approx([1, 8 / 12, 0])


def test_objects_that_are_absent_have_no_size(tmp_path):
    cases = [("a.png", 0, {"cell": (4, 4, 4, 4), "nucleus": (0, 0, 0, 8)}), CASES[1]]
    report, _ = evaluate(tmp_path, cases=cases)
    assert report["dice/box"] == 0.5
    assert report["dice/box/small"] == 1
    assert "dice/box/large" not in report


def test_nothing_measured_is_null_in_valid_json(tmp_path):
    report, _ = evaluate(tmp_path, flips=[[-1, -1, -1]])
    assert report["background_flips"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in report.values())


def test_a_second_evaluation_starts_anew(tmp_path):
    once, twice = evaluate(tmp_path / "once"), evaluate(tmp_path / "twice", runs=2)
    assert once == twice
    for name in ("metrics.json", "metrics.csv", "dice_by_clicks.png"):
        first, second = ((tmp_path / folder / "report" / name).read_bytes() for folder in ("once", "twice"))
        assert first == second


@pytest.mark.parametrize(("without", "drawn"), [((), True), (("dice/click_3",), False)])
def test_dice_by_clicks_is_drawn_where_there_is_more_than_one_number_of_clicks(tmp_path, without, drawn):
    report, _ = evaluate(tmp_path, without=without)
    assert (tmp_path / "report" / "dice_by_clicks.png").is_file() == drawn
    assert ("dice/click_3" in report) == drawn


def test_groups_have_means_of_their_own(tmp_path):
    report, _ = evaluate(tmp_path, groups={"a.png": "anna", "b.nii.gz": "bob"})
    assert report["groups"] == 2
    assert report["dice_by_group/click_1"] == pytest.approx(((1 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_the_log_shows_a_line_for_each_kind_of_prompt_and_the_other_scalars(tmp_path, caplog):
    with caplog.at_level("INFO"):
        report, _ = evaluate(tmp_path)
    (message,) = [record.getMessage() for record in caplog.records if "metrics.json" in record.getMessage()]
    first, *lines = message.splitlines()
    assert f"{tmp_path}/report/metrics.json" in first
    titles = re.split(r"\s{2,}", lines[0].strip())
    table = {}
    for line in lines[1:5]:
        kind, *cells = line.split()
        table[kind] = dict(zip(titles[1:], cells, strict=True))
    assert list(table) == ["click_1", "click_3", "box", "whole"]
    for kind, cells in table.items():
        assert cells["Dice"] == f"{report[f'dice/{kind}']:.4f}"
        assert cells["by image"] == f"{report[f'dice_by_image/{kind}']:.4f}"
        assert cells["small"] == f"{report[f'dice/{kind}/small']:.4f}"
        assert "floor" not in cells and "IoU" not in cells  # what was not measured of any kind
    scalars = dict(line.split() for line in lines[5:])
    assert scalars["background_flips"] == "0.7500"
    assert (scalars["objects"], scalars["images"]) == ("4", "2")
    assert not any(name.startswith("dice/") for name in scalars)
