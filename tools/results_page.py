# SPDX-License-Identifier: Apache-2.0
"""The page of results: what was done, a plot, and a table for each data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROMPTS = {"1 click": "click_1", "5 clicks": "click_5", "box": "box"}
METRICS = {"Dice": "dice", "IoU": "iou", "NSD": "nsd"}
CURVES = {"loss": "loss", "dice/click_1": "Dice, 1 click", "dice/box": "Dice, box"}
Curves = Mapping[str, Mapping[str, Mapping[str, Mapping[Any, float]]]]  # set, recipe, what of CURVES, step


def write_page(path: Path, rows: list[dict[str, Any]], about: str, curves: Curves) -> None:
    """Write the page of results: what was done, plots, and a table for each data set.

    Args:
        path: of the page; the plots lie beside it.
        rows: of the table.
        about: what is said before.
        curves: of trainings.
    """
    parts = [about.strip(), f"![Dice of each recipe]({path.stem}.png)"]
    if curves:
        plot_curves(path.with_name(f"{path.stem}_curves.png"), curves)
        parts.append(f"![Loss and Dice while training]({path.stem}_curves.png)")
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
    also = next((row["also"] for row in rows if row.get("also")), None)
    heads += [f"Dice on {also}"] if also else []
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        scores = [" ".join(_short(row.get(f"{metric} {short}")) for short in PROMPTS).strip() for metric in METRICS]
        first = [row.get(name) for name in ("model", "image_size", "recipe", "seed")]
        cost = [row.get(name) for name in ("trained", "file MB", "steps", "s/step", "train MB")]
        cells = [*first, *cost, *scores, _short(row.get("Dice no prompt"))]
        cells += [" ".join(_short(row.get(f"also {short}")) for short in PROMPTS).strip()] if also else []
        lines.append(["" if cell is None else str(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: Any) -> str:
    return "" if value in (None, "") else f"{float(value):.3f}".removeprefix("0")


def plot_curves(path: Path, curves: Curves) -> None:
    """Draw loss and Dice of each training by its steps, a row of plots for each data set.

    Args:
        path: of the PNG file.
        curves: of trainings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(curves) + 0.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(curves), len(CURVES), squeeze=False)
    for axes, (name, trainings) in zip(grid, curves.items()):
        for axis, (key, title) in zip(axes, CURVES.items()):
            for label, curve in trainings.items():
                axis.plot([int(step) for step in curve[key]], list(curve[key].values()), marker=".", label=label)
            axis.set(title=f"{name}: {title}", xlabel="steps")
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Software": None})


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
