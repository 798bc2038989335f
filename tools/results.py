# SPDX-License-Identifier: Apache-2.0
"""Train and score what a list names, network by size by recipe by data set, and write one table.

    python -m tools.results --sets /data --output docs/results
    python -m tools.results --sets /data --plan tools/steps.yaml --costs_alone --output eval/steps

First it measures what a step of each recipe costs, one after another, when nothing else should run, and keeps that in
results_costs.csv. The time of a plan then gives each recipe its number of steps, whatever runs beside it. Rows are
trained and scored as many at a time as ``--jobs`` says, and written to results.csv, results.md and results.png. What
these files hold already is left as it is: a run that was stopped goes on, and a second one with the same costs gives
the same table. Weights are scored as they are after the last step.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from tools.results_page import CURVES, METRICS, PROMPTS, write_page
from tools.step_costs import BATCH, ROOT, steps_in

TRAIN = "configs/train.yaml"
CURVE_PASSES = 8
COSTS = ("model", "image_size", "set", "recipe")
KEYS = (*COSTS, "seed")
NO_PROMPT = {"dice": "Dice no prompt", "iou": "IoU no prompt", "nsd": "NSD no prompt"}
SCORES = {f"{m}/{p}": f"{metric} {short}" for metric, m in METRICS.items() for short, p in PROMPTS.items()}


def run(module: str, words: list[str], **settings: Any) -> str:
    """Run a module as a user does, and return what it prints.

    Args:
        module: of Python.
        words: that come first.
        settings: options by name.
    """
    words = [*words, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
    command = [sys.executable, "-m", module, *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"error: {' '.join(command)}\n{result.stderr[-2000:]}")
    return result.stdout


class Row:
    """One row of the table: a recipe on a data set.

    Args:
        key: its model, image_size, set, recipe and seed.
        recipe: ``files`` and ``settings``, or ``unet``; nothing for weights as they are.
        plan: ``seconds``, or ``steps``, ``images``, ``also`` and ``curve``.
        given: options of the command line.
    """

    def __init__(
        self, key: dict[str, Any], recipe: Mapping[str, Any] | None, plan: Mapping[str, Any], given: argparse.Namespace
    ) -> None:
        self.key, self.recipe, self.plan, self.given = key, recipe, plan, given
        self.curve: dict[str, dict[int, float]] | None = None
        self.is_unet = bool(self.recipe and self.recipe.get("unet"))
        self.files = [TRAIN, *(f"configs/{name}" for name in (self.recipe or {}).get("files", []))]
        self.data = {"dataset_dir": str(Path(given.sets) / key["set"]), "cache_dir": given.cache_dir}

    def name(self, columns: tuple[str, ...] = KEYS) -> tuple[str, ...]:
        """Return what tells it from others.

        Args:
            columns: of its key.
        """
        return tuple(str(self.key[column]) for column in columns)

    def measure(self) -> dict[str, Any]:
        """Return what a step costs; see :mod:`tools.step_costs`."""
        if self.is_unet:
            options = {**self.data, "image_size": self.key["image_size"]}
            return json.loads(run("tools.unet", ["--costs_alone"], **options).splitlines()[-1])
        with tempfile.TemporaryDirectory(dir=self.given.work) as folder:
            settings = json.dumps(self._settings(folder))
            return json.loads(run("tools.step_costs", [json.dumps(self.files), settings]).splitlines()[-1])

    def fill(self, costs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Train and score it.

        Args:
            costs: of a step; nothing for weights as they are.
        """
        row: dict[str, Any] = dict(self.key)
        if costs is not None:
            row |= {name: costs[name] for name in ("trained", "s/step", "train MB")}
            steps = self.plan.get("steps") or steps_in(self.plan["seconds"], costs)
            row["steps"] = steps
            if self.is_unet:
                own = {name: self.key[name] for name in ("seed", "image_size")}
                options = {**self.data, **own, "steps": steps, "images": self.plan["images"]}
                found = json.loads(run("tools.unet", [], **options).splitlines()[-1])
                return row | {short: round(found[name], 4) for name, short in NO_PROMPT.items()}
        with tempfile.TemporaryDirectory(dir=self.given.work) as folder:
            settings = self._settings(folder)
            weights = {"ckpt_path": "none", "image_size": self.key["image_size"]}
            if costs is not None:
                row["steps"] = self.train(settings, steps)
                row["file MB"] = round((Path(folder) / "models" / "adapter.safetensors").stat().st_size / 1e6, 2)
                weights = {"ckpt_path": f"{folder}/models/model_final.pt"}
            scored = {name: settings[name] for name in (*self.data, "model", "ckpt_dir", "output_dir")} | weights
            found = evaluate(scored, self.plan["images"])
            row |= {short: round(found[name], 4) for name, short in SCORES.items()}
            row["Dice no prompt"], row["floor box"] = (round(found[n], 4) for n in ("dice/whole", "dice_floor/box"))
            if also := self.plan.get("also"):
                found = evaluate({**scored, "dataset_dir": str(Path(self.given.sets) / also)}, self.plan["images"])
                row["also"] = also
                row |= {f"also {name}": round(found[f"dice/{key}"], 4) for name, key in PROMPTS.items()}
        return row

    def train(self, settings: Mapping[str, Any], steps: int) -> int:
        """Train, and keep the curve of loss and Dice where the plan wants it: scores of its first validation images.

        Args:
            settings: of the command line.
            steps: of the optimiser.

        Returns:
            The steps that were taken: where a curve is kept, as many in each pass.
        """
        images = self.plan.get("curve", 0)
        passes = min(CURVE_PASSES, steps) if images else 1
        per_pass = steps // passes
        once = {"train#sampler#num_samples": per_pass * BATCH, "max_epochs": passes, "early_stop_patience": passes + 1}
        scored = {"validate#dataset#data": f"$@datalist['validation'][:{images}]" if images else []}
        bundle("training", self.files, {**settings, **once, **scored})
        if images:
            kept = torch.load(f"{settings['ckpt_dir']}/last.pth", weights_only=True)["curves"]
            values = {"loss": kept["losses"], **{name: kept["scores"][name] for name in CURVES if name != "loss"}}
            self.curve = {name: {n * per_pass: value for n, value in found.items()} for name, found in values.items()}
        return passes * per_pass

    def _settings(self, folder: str) -> dict[str, Any]:
        own = {name: self.key[name] for name in ("model", "image_size", "seed")}
        places = {"ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/eval"}
        return {**self.data, **own, **places, **(self.recipe or {}).get("settings", {})}


def bundle(run_id: str, files: list[str], settings: Mapping[str, Any]) -> None:
    """Run the bundle.

    Args:
        run_id: such as ``training``.
        files: of configs.
        settings: of the command line.
    """
    run("monai.bundle", ["run", run_id, "--config_file", str(files)], **settings)


def evaluate(settings: Mapping[str, Any], images: int) -> dict[str, float]:
    """Score weights, and return what metrics.json holds.

    Args:
        settings: of the command line.
        images: of the validation list, the first ones.
    """
    first = {"validate#dataset#data": f"$scripts.data.pick_split(@datalist, @split)[:{images}]"}
    bundle("evaluating", [TRAIN, "configs/evaluate.yaml"], {**settings, **first})
    return json.loads((Path(settings["output_dir"]) / "metrics.json").read_text())


def read_table(path: Path, columns: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Read a table, where it is, by what tells its rows apart.

    Args:
        path: of the CSV file.
        columns: that tell them apart.
    """
    if not path.is_file():
        return {}
    with path.open() as file:
        return {tuple(row[name] for name in columns): row for row in csv.DictReader(file)}


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with all their columns.

    Args:
        path: of the CSV file.
        rows: of the table.
    """
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def main(argv: list[str] | None = None) -> None:
    """Measure the steps of all rows that are not there yet, train and score them, and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", required=True, help="folder of the data sets")
    parser.add_argument("--plan", default=str(Path(__file__).with_suffix(".yaml")))
    parser.add_argument("--output", default="docs/results")
    parser.add_argument("--work", default=None, help="folder for what is trained meanwhile")
    parser.add_argument("--cache_dir", default=".cache")
    parser.add_argument("--jobs", type=int, default=1, help="rows that are trained side by side")
    parser.add_argument("--costs_alone", action="store_true", help="measure the steps of each row, and train nothing")
    given = parser.parse_args(argv)
    plan = yaml.safe_load(Path(given.plan).read_text())
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    planned = []
    for block in plan["rows"]:
        for values in product(*(block[f"{name}s"] for name in KEYS)):
            key = dict(zip(KEYS, values))
            planned.append(Row(key, plan["recipes"][key["recipe"]], {**plan, **block}, given))

    path = output.with_name(f"{output.name}_costs.csv")
    costs = read_table(path, COSTS)
    for row in planned:
        if row.recipe is not None and row.name(COSTS) not in costs:
            costs[row.name(COSTS)] = found = {name: row.key[name] for name in COSTS} | row.measure()
            write_table(path, list(costs.values()))
            print(found, flush=True)
    if given.costs_alone:
        return

    path, drawn = output.with_suffix(".csv"), output.with_name(f"{output.name}_curves.json")
    done = read_table(path, KEYS)
    curves = json.loads(drawn.read_text()) if drawn.is_file() else {}
    with ThreadPoolExecutor(given.jobs) as pool:
        began = time.perf_counter()
        left = [row for row in planned if row.name() not in done]
        running = {pool.submit(row.fill, costs.get(row.name(COSTS))): row for row in left}
        for future in as_completed(running):
            row = running[future]
            try:
                done[row.name()] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what runs is finished; what waits is not begun
                raise
            order = {other.name(): place for place, other in enumerate(planned)}
            rows = [done[name] for name in sorted(done, key=lambda name: order.get(name, -1))]
            write_table(path, rows)
            if row.curve:
                curves.setdefault(row.key["set"], {})[f"{row.key['recipe']}, seed {row.key['seed']}"] = row.curve
                drawn.write_text(json.dumps(curves, indent=1) + "\n")
            write_page(output.with_suffix(".md"), rows, plan.get("about", "# Results"), curves)
            print(f"{row.key}: after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
