# SPDX-License-Identifier: Apache-2.0
"""Evaluation of whole objects of volumes, as a user starts it."""

import csv
import json

import pytest

from tests.e2e.bundle import EVALUATE, run_warm
from tests.e2e.datasets import make_decathlon, make_folder

pytestmark = pytest.mark.slow

VOLUMES = [*EVALUATE, "configs/evaluate_volumes.yaml"]


def test_a_row_for_each_object_of_each_volume(folder):
    data = make_decathlon(folder / "data", count=2)
    given = {"dataset_dir": data, "ckpt_path": "models/efficient_sam_vitt_base.pth", "split": "training"}
    where = {"output_dir": folder / "out", "cache_dir": folder / "cache"}
    result = run_warm("evaluating", VOLUMES, val_fraction=0, corrected_slices="[1]", **given, **where)
    assert result.code == 0, result.err
    report = json.loads((folder / "out" / "metrics.json").read_text())
    with open(folder / "out" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["images"] == 2 and {row["slice"] for row in rows} == {""}
    first = ("click", "box", "mask")
    names = {*first, "every_slice_click", "every_slice_box", *(f"{each}_corrected_1" for each in first)}
    assert {name.partition("/")[2] for name in report if name.startswith("dice/")} >= names
    assert all(0 <= report[f"{measure}/{name}"] <= 1 for measure in ("dice", "nsd_mm") for name in names)
    assert report["dice/mask"] > 0.75  # two plain slices
    assert report["seconds/click"] > 0 and 0 <= report["slices_past/mask"] <= 2


def test_pictures_alone_are_refused(folder):
    given = {"dataset_dir": make_folder(folder / "data"), "ckpt_path": "models/efficient_sam_vitt_base.pth"}
    result = run_warm("evaluating", VOLUMES, output_dir=folder / "out", cache_dir=folder / "cache", **given)
    assert result.code == 1
    assert "no usable object" in result.errors[0] or "is no volume" in result.errors[0]
