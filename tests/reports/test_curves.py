# SPDX-License-Identifier: Apache-2.0
"""Plots: that the lines drawn are the numbers given, and the file the same every time."""

import sys
import threading

import numpy as np
import pytest
from PIL import Image

from scripts.reports.curves import plot_dice_by_clicks

CLICKS = [1, 3, 10]
CURVES = {"all": [0.5, 0.7, 0.8], "small": [0.3, 0.4, 0.45], "large": [0.7, 0.9, 1.0]}


def test_a_line_for_each_curve_over_the_numbers_of_clicks(tmp_path):
    figure = plot_dice_by_clicks(tmp_path / "plot.png", CLICKS, CURVES)
    (axes,) = figure.axes
    assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == CURVES
    assert all(line.get_xdata().tolist() == CLICKS for line in axes.lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CURVES)
    assert axes.get_xticks().tolist() == CLICKS


def test_the_file_is_a_picture_and_the_same_every_time_in_any_thread(tmp_path):
    drawn = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.png"
        thread = threading.Thread(target=plot_dice_by_clicks, args=(path, CLICKS, CURVES))
        thread.start()
        thread.join()
        drawn.append(path.read_bytes())
        assert np.unique(np.asarray(Image.open(path).convert("L"))).size > 10
    assert drawn[0] == drawn[1]


def test_other_values_give_another_picture(tmp_path):
    for name, last in (("first", 0.8), ("second", 0.9)):
        plot_dice_by_clicks(tmp_path / f"{name}.png", CLICKS, {"all": [0.5, 0.7, last]})
    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "second.png").read_bytes()


def test_matplotlibs_global_state_is_not_touched(tmp_path):
    plot_dice_by_clicks(tmp_path / "plot.png", CLICKS, CURVES)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_curve_of_another_length_is_refused(tmp_path):
    with pytest.raises(ValueError, match="small has 2 values for 3 numbers of clicks"):
        plot_dice_by_clicks(tmp_path / "plot.png", CLICKS, {"small": [0.3, 0.4]})
