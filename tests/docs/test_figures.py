# SPDX-License-Identifier: Apache-2.0
"""Figures that stand in two places are the same."""

import csv
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_metrics_of_the_metadata_are_those_of_the_shipped_weights():
    metrics = json.loads((ROOT / "configs" / "metadata.json").read_text())["eval_metrics"]
    with (ROOT / "docs" / "results.csv").open() as file:
        scored = {row["set"]: row for row in csv.DictReader(file) if row["recipe"] == "base"}
    columns = {"dice/click_1": "Dice 1 click", "dice/box": "Dice box"}
    assert metrics
    for name, value in metrics.items():
        data_set, metric = name.split(" ")
        assert value == pytest.approx(float(scored[data_set][columns[metric]]), abs=6e-4), name
