# SPDX-License-Identifier: Apache-2.0
"""The table of results: each row is trained and scored once, and a run that was stopped goes on."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from scripts.networks.registry import BACKBONES, MODELS
from tests.e2e.datasets import make_cells
from tools import results, results_page, step_costs

TOOLS = Path(results.__file__).parent


@pytest.mark.parametrize(
    ("step", "first", "views", "steps"),
    [
        (0.5, 0.6, 0, 20),
        (0.5, 1.0, 40, 10),  # steps that make their views take twice as long
        ("0.5", "1.0", "20", 15),  # as they are read from a file
        (0.5, 0.4, 20, 20),
        (20.0, 20.0, 0, 1),
    ],
)
def test_steps_fill_the_time(step, first, views, steps):
    assert step_costs.steps_in(10, {"s/step": step, "first": first, "views": views}) == steps


PLANS = {path.stem: plan for path in TOOLS.glob("*.yaml") if "rows" in (plan := yaml.safe_load(path.read_text()))}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_names_what_there_is(name):
    plan = PLANS[name]
    for recipe in filter(None, plan["recipes"].values()):
        assert all((TOOLS.parent / "configs" / file).is_file() for file in recipe.get("files", []))
    for block in plan["rows"]:
        assert set(block["recipes"]) <= set(plan["recipes"]) and set(block["models"]) <= {*MODELS, *BACKBONES}
        assert all(block[f"{key}s"] for key in results.KEYS)


def test_a_page_has_a_table_for_each_set_and_a_plot(tmp_path):
    key = {"model": "vitt", "image_size": 64, "seed": 0}
    rows = [
        {**key, "set": "a", "recipe": "base", "Dice 1 click": 0.5, "Dice 5 clicks": "0.75", "Dice box": 1.0},
        {**key, "set": "b", "recipe": "U-Net", "trained": 7, "Dice no prompt": 0.25},
        {**key, "set": "c", "recipe": "base", "also": "a", "also 1 click": 0.5, "also 5 clicks": 0.5, "also box": 0.5},
    ]
    curve = {"loss": {1: 2.0}, "dice/click_1": {0: 0.5, 1: 0.6}, "dice/box": {0: 0.5}}
    results_page.write_page(tmp_path / "page.md", rows, "# About\n", {"a": {"adapters": curve}})
    page = (tmp_path / "page.md").read_text()
    assert page.startswith(
        "# About\n\n![Dice of each recipe](page.png)\n\n![Loss and Dice while training](page_curves.png)"
    )
    assert "\n\n## a\n\n| network | size | recipe |" in page
    assert (tmp_path / "page_curves.png").stat().st_size > 5000
    assert "| vitt | 64 | base | 0 |  |  |  |  |  | .500 .750 1.000 |  |  |  |" in page
    assert "| vitt | 64 | U-Net | 0 | 7 |  |  |  |  |  |  |  | .250 |" in page.split("## b")[1]
    assert (
        "| Dice on a |" in page.split("## c")[1]
        and "| .500 .500 .500 |" in page
        and "Dice on" not in page.split("## c")[0]
    )
    assert (tmp_path / "page.png").stat().st_size > 5000


@pytest.mark.slow
def test_rows_are_trained_and_scored_once(tmp_path, capsys):
    make_cells(tmp_path / "cells")
    recipes = {"base": None, "U-Net": {"unet": True}, "decoder": {"files": ["finetune/decoder.yaml"]}}
    recipes["decoder"]["settings"] = {"cached_views": 2}
    block = {"models": ["vitt"], "image_sizes": [64], "sets": ["cells"], "recipes": ["decoder"], "seeds": [0]}
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        yaml.safe_dump({"steps": 2, "images": 2, "also": "cells", "curve": 2, "recipes": recipes, "rows": [block]})
    )
    given = ["--sets", tmp_path, "--plan", plan, "--output", tmp_path / "out", "--work", tmp_path]
    given += ["--cache_dir", tmp_path, "--jobs", 2]
    results.main(list(map(str, given)))
    before = (tmp_path / "out.csv").read_text()
    curve = json.loads((tmp_path / "out_curves.json").read_text())["cells"]["decoder, seed 0"]
    assert set(curve["loss"]) == {"1", "2"} and set(curve["dice/box"]) == {"0", "1", "2"}
    assert capsys.readouterr().out.count("'recipe': 'decoder'") == 2  # its cost, and its row
    more = {"recipes": recipes, "rows": [{**block, "recipes": ["base", "U-Net", "decoder"]}]}
    plan.write_text(yaml.safe_dump({"seconds": 0.5, "images": 2, **more}))
    results.main(list(map(str, given)))
    assert "decoder" not in capsys.readouterr().out  # neither anew
    base, unet, decoder = csv.DictReader((tmp_path / "out.csv").open())  # in the order of the plan
    assert [row["recipe"] for row in (base, unet, decoder)] == ["base", "U-Net", "decoder"]
    assert decoder == {**decoder, **next(csv.DictReader(before.splitlines()))}
    assert 0 <= float(unet["Dice no prompt"]) <= 1 and int(unet["steps"]) > 0
    for row in (base, decoder):
        assert 0 <= float(row["Dice 1 click"]) <= 1 and 0 <= float(row["NSD box"]) <= 1
    assert base["trained"] == "" and int(decoder["trained"]) > 4_000_000
    assert decoder["also"] == "cells" and decoder["also box"] == decoder["Dice box"]
    assert (tmp_path / "out.md").read_text().count("| vitt |") == 3
