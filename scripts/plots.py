# SPDX-License-Identifier: Apache-2.0
"""Curves of an evaluation, drawn by matplotlib without its global state, so that any thread may draw."""

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
    # here, because a server that only predicts may lack it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
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
