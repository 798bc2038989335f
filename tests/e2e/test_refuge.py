# SPDX-License-Identifier: Apache-2.0
"""REFUGE through the command line: several raters' disc and cup are trained, scored, and a bad image is named."""

import json

import pytest

from scripts.prompts.case_id import UNION_OBJECT
from tests.data.fundus import make_case, make_refuge
from tests.e2e.bundle import EVALUATE, SMALL, TRAIN, places, run_warm

pytestmark = pytest.mark.slow

REFUGE = "configs/data/refuge.yaml"


def rows_of(folder):
    lines = (folder / "eval" / "metrics.csv").read_text().splitlines()
    return [tuple(line.split(",")[:3]) for line in lines[1:]]


@pytest.mark.parametrize("settings", [{}, {"class_masks": True}], ids=["one-by-one", "class-masks"])
def test_disc_and_cup_are_trained_and_scored_from_several_raters(folder, settings):
    data = make_refuge(folder / "data")
    case = make_case(data / "Training-400", "g0009")
    (case / "g0009_seg_cup_3.png").unlink()
    where = {**SMALL, **settings, "dataset_dir": data, **places(folder)}

    result = run_warm("training", [TRAIN, REFUGE], **where)
    assert result.code == 0, result.err
    assert "8 objects on 4 items of 4 images, 1 images left out" in result.out
    assert "g0009_seg_cup_3.png does not exist" in result.out
    assert (folder / "models" / "model.pt").is_file()

    result = run_warm("evaluating", [*EVALUATE, REFUGE], **where)
    assert result.code == 0, result.err
    rows = [row for row in rows_of(folder) if row[2] != UNION_OBJECT]
    assert rows == [(f"t000{i}/t000{i}.jpg", "0", part) for i in (1, 2) for part in ("disc", "cup")]
    report = json.loads((folder / "eval" / "metrics.json").read_text())
    assert report["images"] == 2
    for name in ("dice/click_1", "dice/box", "iou/click_1", "dice_5_thresholds/click_1"):
        assert 0 <= report[name] <= 1


def test_the_layout_is_recognised_without_its_config_file(folder):
    result = run_warm("training", TRAIN, **SMALL, dataset_dir=make_refuge(folder / "data"), **places(folder))
    assert result.code == 0, result.err
    assert "8 objects on 4 items of 4 images" in result.out
