# SPDX-License-Identifier: Apache-2.0
"""Train and score what a list names, network by size by recipe by data set, and write one table.

    python -m tools.results --sets /data --output docs/results
    python -m tools.results --sets /data --plan tools/steps.yaml --steps_alone --output eval/steps

Writes results.csv, results.md and results.png. Rows that are in results.csv already are left as they are, so that a run
that was stopped goes on. All recipes train for as long: the time of a step is measured first, when nothing else should
run, and gives the number of steps, whatever runs beside it later. Weights are scored as they are after the last step.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[1]
TRAIN = "configs/train.yaml"
MEASURED_IMAGES, BATCH = 24, 4
KEYS = ("model", "image_size", "set", "recipe", "seed")
NO_PROMPT = {"dice": "Dice no prompt", "iou": "IoU no prompt", "nsd": "NSD no prompt"}
PROMPTS = {"1 click": "click_1", "5 clicks": "click_5", "box": "box"}
METRICS = {"Dice": "dice", "IoU": "iou", "NSD": "nsd"}
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


def bundle(run_id: str, files: list[str], settings: Mapping[str, Any]) -> None:
    """Run the bundle.

    Args:
        run_id: such as ``training``.
        files: of configs.
        settings: of the command line.
    """
    run("monai.bundle", ["run", run_id, "--config_file", str(files)], **settings)


def parse(files: list[str], settings: Mapping[str, Any]) -> Any:
    """Read configs.

    Args:
        files: of configs.
        settings: that go over them.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    parser.update(dict(settings))
    return parser


def measure(files: list[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """Measure a training in a process of its own; see :func:`measure_here`.

    Args:
        files: of configs.
        settings: of the command line.
    """
    return json.loads(run("tools.results", ["--measure", json.dumps([files, dict(settings)])]).splitlines()[-1])


def measure_here(files: list[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """Measure the steps of a training on a few images: the median of three passes after a first one.

    Args:
        files: of configs.
        settings: of the command line.

    Returns:
        ``parameters`` that are trained, seconds a ``step``, seconds that a view takes when it is ``first`` seen, and
        ``MB`` that training adds.
    """
    from monai.utils import set_determinism

    set_determinism(0)  # each draws as many corrections
    images = f"$@datalist['training'][:{MEASURED_IMAGES}]"
    own = {"max_epochs": 4, "train#dataset#data": images, "validate#dataset#data": [], "train#handlers": []}
    passes = {"train#sampler#num_samples": MEASURED_IMAGES, "train#keeping": ["@ranks", "@final"]}
    views = {"cached_views": 1} if settings.get("cached_views") else {}  # so that the first pass has made them all
    parser = parse(files, {**settings, **own, **passes, **views})
    trainer = parser.get_parsed_content("train#trainer")
    network = parser.get_parsed_content("network")
    process, times, memory = psutil.Process(), [], []
    before = process.memory_info().rss

    @trainer.on("ITERATION_COMPLETED")
    def note(engine: Any) -> None:
        times.append(time.perf_counter())
        memory.append(process.memory_info().rss)

    trainer.run()
    steps = [b - a for a, b in pairwise(times)]
    first = len(times) // 4
    step = statistics.median(steps[first:])
    return {
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "step": step,
        "first": max(statistics.median(steps[: first - 1]) - step, 0) / BATCH if views else 0.0,
        "MB": (max(memory) - before) / 2**20,
    }


def steps_in(seconds: float, measured: Mapping[str, float], views: int) -> int:
    """Return how many steps a time has, of which the first see views that are to be made.

    Args:
        seconds: of training.
        measured: of :func:`measure`.
        views: that there are at most.
    """
    step, first = measured["step"], measured["first"] * BATCH
    making = min(views / BATCH, seconds / (step + first))  # steps whose views are all new
    return max(int(making + (seconds - making * (step + first)) / step), 1)


def run_row(key: dict[str, Any], recipe: Mapping[str, Any] | None, given: Any, plan: Mapping[str, Any]) -> dict:
    """Train and score one row.

    Args:
        key: of the row.
        recipe: ``files`` and ``settings``, or nothing for the weights as they are.
        given: options of the command line.
        plan: with ``seconds`` and ``images``.
    """
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        places = {"cache_dir": given.cache_dir, "ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/eval"}
        data = {"dataset_dir": str(Path(given.sets) / key["set"]), "model": key["model"], **places}
        row: dict[str, Any] = dict(key)
        if recipe is not None and recipe.get("unet"):
            return row | run_unet(data["dataset_dir"], key, given, plan)
        weights = {"ckpt_path": "none", "image_size": key["image_size"]}
        if recipe is not None:
            files = [TRAIN, *(f"configs/{name}" for name in recipe.get("files", []))]
            settings = {**data, "image_size": key["image_size"], "seed": key["seed"], **recipe.get("settings", {})}
            measured = measure(files, settings)
            row |= {"trained": int(measured["parameters"]), "s/step": round(measured["step"], 3)}
            row["train MB"] = round(measured["MB"])
            if given.steps_alone:
                return row
            views = settings.get("cached_views", 0) * len(parse(files, data).get_parsed_content("train#dataset"))
            steps = plan.get("steps") or steps_in(plan["seconds"], measured, views)
            bundle(
                "training",
                files,
                {**settings, "train#sampler#num_samples": steps * BATCH, "max_epochs": 1, "validate#dataset#data": []},
            )
            adapter = Path(folder) / "models" / "adapter.safetensors"
            row |= {"file MB": round(adapter.stat().st_size / 1e6, 2), "steps": steps}
            weights = {"ckpt_path": f"{folder}/models/model_final.pt"}
        found = evaluate({**data, **weights}, plan["images"])
        row |= {short: round(found[name], 4) for name, short in SCORES.items()}
        row["Dice no prompt"], row["floor box"] = (round(found[name], 4) for name in ("dice/whole", "dice_floor/box"))
        if also := plan.get("also"):
            found = evaluate({**data, **weights, "dataset_dir": str(Path(given.sets) / also)}, plan["images"])
            row |= {f"{also}: {short}": round(found[name], 4) for name, short in SCORES.items() if name[0] == "d"}
        return row


def evaluate(settings: Mapping[str, Any], images: int) -> dict[str, float]:
    """Score weights, and return what metrics.json holds.

    Args:
        settings: of the command line.
        images: of the validation list, the first ones.
    """
    first = {"validate#dataset#data": f"$scripts.data.pick_split(@datalist, @split)[:{images}]"}
    bundle("evaluating", [TRAIN, "configs/evaluate.yaml"], {**settings, **first})
    return json.loads((Path(settings["output_dir"]) / "metrics.json").read_text())


def run_unet(dataset_dir: str, key: Mapping[str, Any], given: Any, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Train and score the baseline without prompts; see :mod:`tools.unet`.

    Args:
        dataset_dir: the data set.
        key: of the row.
        given: options of the command line.
        plan: with ``seconds`` and ``images``.
    """
    options = {"dataset_dir": dataset_dir, "seed": key["seed"], "image_size": key["image_size"]}
    options |= {"seconds": plan["seconds"], "images": plan["images"], "cache_dir": given.cache_dir}
    found = json.loads(run("tools.unet", [], **options).splitlines()[-1])
    scores = {short: round(found[name], 4) for name, short in NO_PROMPT.items()}
    return {"trained": found["parameters"], "steps": found["steps"], **scores}


def write_page(path: Path, rows: list[dict[str, Any]], about: str) -> None:
    """Write the page of results: what was done, a plot, and a table for each data set.

    Args:
        path: of the page; the plot lies beside it.
        rows: of the table.
        about: what is said before.
    """
    parts = [about.strip(), f"![Dice of each recipe]({path.stem}.png)"]
    for name in dict.fromkeys(row["set"] for row in rows):
        parts += [f"## {name}", table_of([row for row in rows if row["set"] == name])]
    path.write_text("\n\n".join(parts) + "\n")
    plot(path.with_suffix(".png"), rows)


def table_of(rows: list[dict[str, Any]]) -> str:
    """Write rows of one data set as a table of Markdown, the scores of three prompts in one cell.

    Args:
        rows: with the columns of results.csv.
    """
    heads = ["network", "size", "recipe", "seed", "trained", "MB of file", "steps", "s a step", "MB of training"]
    heads += [*(f"{metric}: 1 click, 5, box" for metric in METRICS), "Dice, no prompt"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        scores = [" ".join(_short(row.get(f"{metric} {short}")) for short in PROMPTS).strip() for metric in METRICS]
        first = [row.get(name) for name in ("model", "image_size", "recipe", "seed")]
        cost = [row.get(name) for name in ("trained", "file MB", "steps", "s/step", "train MB")]
        cells = [*first, *cost, *scores, _short(row.get("Dice no prompt"))]
        lines.append(["" if cell is None else str(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: Any) -> str:
    return "" if value in (None, "") else f"{float(value):.3f}".removeprefix("0")


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the Dice of each recipe on each data set.

    Args:
        path: of the PNG file.
        rows: of the table.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets, recipes = (list(dict.fromkeys(row[name] for row in rows)) for name in ("set", "recipe"))
    figure = Figure(figsize=(3.2 * len(sets) + 2, 0.32 * len(recipes) + 1.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, sets):
        for short, marker in zip((*PROMPTS, "no prompt"), "o^sx"):
            found = [row for row in rows if row["set"] == name and row.get(f"Dice {short}") not in (None, "")]
            values = [float(row[f"Dice {short}"]) for row in found]
            axis.plot(values, [recipes.index(row["recipe"]) for row in found], marker, label=short, markersize=5)
        axis.set(title=name, xlabel="Dice")
        axis.set_yticks(range(len(recipes)), recipes)
        axis.grid(alpha=0.3)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, metadata={"Software": None})


def main(argv: list[str] | None = None) -> None:
    """Run all rows that are not there yet, and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", help="folder of the data sets")
    parser.add_argument("--plan", default=str(Path(__file__).with_suffix(".yaml")))
    parser.add_argument("--output", default="docs/results")
    parser.add_argument("--work", default=None, help="folder for what is trained meanwhile")
    parser.add_argument("--cache_dir", default=".cache")
    parser.add_argument("--steps_alone", action="store_true", help="measure the steps of each row, and train nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.measure:
        print(json.dumps(measure_here(*json.loads(given.measure))))
        return
    plan = yaml.safe_load(Path(given.plan).read_text())
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_suffix(".csv")
    rows = list(csv.DictReader(path.open())) if path.is_file() else []
    done = {tuple(row[name] for name in KEYS) for row in rows}
    for block in plan["rows"]:
        lists = (block["models"], block["image_sizes"], block["sets"], block["recipes"], block["seeds"])
        for values in product(*lists):
            key = dict(zip(KEYS, values))
            if tuple(map(str, values)) in done:
                continue
            began = time.perf_counter()
            rows.append(run_row(key, plan["recipes"][key["recipe"]], given, {**plan, **block}))
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
                writer.writeheader()
                writer.writerows(rows)
            write_page(output.with_suffix(".md"), rows, plan.get("about", "# Results"))
            print(f"{key}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
