# SPDX-License-Identifier: Apache-2.0
"""Evaluation as a user starts it: the report, and that it is the same every time."""

import csv
import json
import re

import numpy as np
import pytest

from scripts.networks import find_weights
from tests.e2e.bundle import EVALUATE, SMALL, places, run_warm
from tests.e2e.logs import read_log

pytestmark = pytest.mark.slow

MEASURES = [
    *(
        f"dice/{kind}"
        for kind in ("click_1", "click_3", "click_5", "click_10", "box", "box_jittered_5", "box_jittered_10")
    ),
    *("dice_floor/click_1", "dice_floor/box", "iou/click_1", "iou/box", "iou_error/click_1", "iou_error/box"),
]


def read_report(folder):
    report = json.loads((folder / "metrics.json").read_text())
    with open(folder / "metrics.csv", newline="") as file:
        return report, list(csv.DictReader(file))


def test_the_report_has_a_row_for_each_object_and_the_means_of_the_rows(evaluated):
    report, rows = read_report(evaluated[0][1])
    objects = [row for row in rows if row["object"] != "everything"]
    assert (report["objects"], report["images"]) == (len(objects), len({row["image"] for row in rows})) == (2, 2)
    assert len(rows) == 4
    for name in MEASURES:
        values = [float(row[name]) for row in objects]
        assert all(0 <= value <= 1 for value in values)
        assert report[name] == pytest.approx(np.mean(values), abs=2e-6)
    whole = [float(row["dice/whole"]) for row in rows if row["object"] == "everything"]
    assert report["dice/whole"] == pytest.approx(np.mean(whole), abs=2e-6)
    assert 1 <= report["noc/85"] <= report["noc/90"] <= 10
    assert 0 <= report["failures/85"] <= report["failures/90"] <= 1
    assert report["memory_resident_gib"] > 0
    assert len(list((evaluated[0][1] / "panels").glob("*.jpg"))) == 4
    assert (evaluated[0][1] / "dice_by_clicks.png").is_file()


def test_the_best_weights_score_what_training_measured(evaluated, trained):
    report, _ = read_report(evaluated[0][1])
    log = read_log(trained[1] / "eval" / "tensorboard")
    best = max(log.Scalars("dice/click_1"), key=lambda event: event.value)
    assert report["dice/click_1"] == pytest.approx(best.value, abs=1e-6)
    (box,) = [event.value for event in log.Scalars("dice/box") if event.step == best.step]
    assert report["dice/box"] == pytest.approx(box, abs=1e-6)


def test_a_second_evaluation_is_the_same_to_the_last_digit(evaluated):
    first, second = (folder for _, folder in evaluated)
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()
    reports = [read_report(folder)[0] for folder in (first, second)]
    for report in reports:
        del report["memory_resident_gib"]
    assert reports[0] == reports[1]


def test_the_log_says_which_weights_were_scored_and_shows_the_table(evaluated, trained):
    result, _ = evaluated[0]
    assert f"from {trained[1]}/models/model.pt" in result.out
    assert re.search(r"prompt +Dice +by image +floor", result.out)
    assert "Traceback" not in result.out + result.err


def test_fewer_prompts_leave_the_rest_unmeasured(dataset, folder, trained):
    where = {**places(folder), "ckpt_dir": trained[1] / "models"}
    asked = {"val_prompts": "['box']", "val_clicks": "[1]"}
    result = run_warm("evaluating", EVALUATE, **SMALL, **asked, dataset_dir=dataset, **where)
    assert result.code == 0, result.err
    report = read_report(folder / "eval")[0]
    assert 0 <= report["dice/box"] <= 1
    assert report["dice/click_1"] is report["noc/90"] is report["dice/whole"] is None


def test_without_a_checkpoint_the_pretrained_weights_are_scored(dataset, folder, evaluated):
    result = run_warm("evaluating", EVALUATE, **SMALL, ckpt_path="none", dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    assert f"tensors from {find_weights('models', 'vitt')}" in result.out
    report, trained_report = read_report(folder / "eval")[0], read_report(evaluated[0][1])[0]
    assert report["objects"] == 2
    assert report["dice/click_1"] != trained_report["dice/click_1"]


def test_another_split_is_scored_and_its_groups(dataset, folder, trained):
    where = {**places(folder), "ckpt_dir": trained[1] / "models", "val_clicks": "[1]"}
    asked = {"split": "training", "group_by": "(case_[0-3])?"}
    result = run_warm("evaluating", EVALUATE, **SMALL, **asked, dataset_dir=dataset, **where)
    assert result.code == 0, result.err
    assert "dice_by_group/box" in read_report(folder / "eval")[0]
    absent = run_warm("evaluating", EVALUATE, **SMALL, split="test", dataset_dir=dataset, **where)
    assert absent.code == 1 and "no labelled images in split 'test': it has training, validation" in absent.errors[0]


def test_a_missing_checkpoint_is_one_line(dataset, folder):
    result = run_warm("evaluating", EVALUATE, **SMALL, dataset_dir=dataset, **places(folder))
    assert result.code == 1
    assert len(result.errors) == 1
    assert f"no weights at {folder}/models/model.pt" in result.errors[0]
    assert "Traceback" not in result.out + result.err
