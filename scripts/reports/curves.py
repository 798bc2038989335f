# SPDX-License-Identifier: Apache-2.0
"""Curves of evaluations and trainings, drawn by matplotlib without its global state, so that any thread may draw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_dice_by_clicks(path: str | Path, clicks: Sequence[int], curves: Mapping[str, Sequence[float]]) -> "Figure":
    """Draw the Dice that a number of clicks gives.

    Args:
        path: of the PNG file.
        clicks: numbers of clicks, in order.
        curves: Dice after each, in 0..1, for each line by name; the first one is drawn boldly.

    Returns:
        The figure that was saved.

    Raises:
        ValueError: when a line has more or fewer values than there are numbers of clicks.
    """
    figure = _new_figure()
    axes = figure.add_subplot(xlabel="clicks", ylabel="Dice", xticks=list(clicks))
    for index, (name, values) in enumerate(curves.items()):
        if len(values) != len(clicks):
            raise ValueError(f"{name} has {len(values)} values for {len(clicks)} numbers of clicks")
        axes.plot(
            clicks, values, marker="o", label=name, linewidth=1.2 if index else 2.5, color=None if index else "black"
        )
    axes.set_ylim(top=1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, metadata={"Software": None})
    return figure


def plot_training(path: str | Path, losses: Mapping[int, float], scores: Mapping[str, Mapping[int, float]]) -> "Figure":
    """Draw how a training went: the loss of each epoch, and scores beside it.

    Args:
        path: of the PNG file.
        losses: by epoch.
        scores: by name and epoch, in 0..1; epoch 0 is before training.

    Returns:
        The figure that was saved.
    """
    figure = _new_figure()
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss")
    axes.plot(list(losses), list(losses.values()), color="black", linewidth=1.2, label="loss")
    beside = axes.twinx()
    beside.set(ylabel="Dice", ylim=(0, 1))
    for name, values in scores.items():
        beside.plot(list(values), list(values.values()), marker=".", linewidth=1.8, label=name)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(path, metadata={"Software": None})
    return figure


def _new_figure() -> "Figure":
    # here, because a server that only predicts may lack it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
