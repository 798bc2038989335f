# SPDX-License-Identifier: Apache-2.0
"""Shapes that are drawn for prompts without a network: where they lie, how large they are, how they are scored."""

import math

import pytest
import torch
from ignite.engine import Engine
from monai.metrics import DiceMetric

from scripts.metrics import ObjectMetric, PromptShapeBaseline

SIZE = (40, 60)  # lop-sided, so that x and y cannot be exchanged unseen


def item(kind, points, labels, label=None):
    """A decollated item with one prompt for each object."""
    label = torch.zeros(len(points), *SIZE, dtype=torch.uint8) if label is None else label
    return {"pred": {"points": {kind: torch.tensor(points)}, "labels": {kind: torch.tensor(labels)}}, "label": label}


def draw(kind, points, labels, diameter=None):
    """Draw for one object, (H, W)."""
    (shape,), (label,) = PromptShapeBaseline(kind, diameter)([item(kind, [points], [labels])])
    assert shape.shape == label.shape == (1, *SIZE)
    return shape[0]


def extent(shape):
    rows, columns = shape.any(1).nonzero().flatten(), shape.any(0).nonzero().flatten()
    return [columns[0].item(), rows[0].item(), columns[-1].item(), rows[-1].item()]


@pytest.mark.parametrize("box", [[10, 5, 49, 24], [3, 7, 5, 9], [7, 8, 7, 8], [0, 0, 59, 39]])
def test_a_box_gives_the_ellipse_that_fits_it(box):
    x0, y0, x1, y1 = box
    shape = draw("box", [[-1.0, -1.0], [x0, y0], [x1, y1]], [-1, 2, 3])
    assert extent(shape) == box
    width, height = x1 - x0 + 1, y1 - y0 + 1
    if min(width, height) > 10:
        assert shape.sum().item() == pytest.approx(math.pi / 4 * width * height, rel=0.01)
    assert torch.equal(shape[y0 : y1 + 1, x0 : x1 + 1], shape[y0 : y1 + 1, x0 : x1 + 1].flip(0, 1))


def test_a_click_gives_a_disc_of_the_given_diameter_around_it():
    shape = draw("click_1", [[41.0, 12.0], [-1.0, -1.0]], [1, -1], diameter=15)
    assert extent(shape) == [34, 5, 48, 19]
    assert shape.sum().item() == pytest.approx(math.pi / 4 * 15**2, rel=0.05)


def test_a_disc_beyond_the_border_is_cut_and_the_smallest_is_the_clicked_pixel():
    assert extent(draw("click_1", [[58.0, 1.0]], [1], diameter=11)) == [53, 0, 59, 6]
    assert draw("click_1", [[58.0, 1.0]], [1], diameter=0.1).nonzero().tolist() == [[1, 58]]


def test_a_click_together_with_a_box_gives_the_box():
    assert extent(draw("click_box", [[20.0, 20.0], [10.0, 5.0], [49.0, 24.0]], [1, 2, 3])) == [10, 5, 49, 24]


def test_an_object_without_a_prompt_gets_nothing():
    assert not draw("box", [[-1.0, -1.0]] * 2, [-1, -1]).any()


def test_a_click_without_a_diameter_is_refused():
    with pytest.raises(ValueError, match="the floor of click_1 is a disc: give its diameter in pixels"):
        draw("click_1", [[41.0, 12.0]], [1])


@pytest.mark.parametrize("diameter", [0, -3.0])
def test_a_disc_without_size_is_refused(diameter):
    with pytest.raises(ValueError, match=f"the diameter of a disc is above 0 pixels, got {diameter}"):
        PromptShapeBaseline("click_1", diameter)


def test_each_object_is_scored_against_its_own_label_and_other_kinds_are_left_out():
    label = torch.zeros(2, *SIZE)
    label[0, 5:25, 10:50] = 1  # the box that is filled by pi / 4
    label[1, 30:, :5] = 1  # far from its box
    everything = item("whole", [[[0.0, 0.0], [59.0, 39.0]]], [[2, 3]])
    items = [everything, item("box", [[[10.0, 5.0], [49.0, 24.0]]] * 2, [[2, 3]] * 2, label)]
    engine = Engine(lambda engine, item: [item])
    ObjectMetric(DiceMetric(ignore_empty=False), output_transform=PromptShapeBaseline("box")).attach(engine, "floor")
    engine.run(items)
    ellipse = 2 * math.pi / 4 / (math.pi / 4 + 1)
    assert engine.state.metric_details["floor"].flatten().tolist() == pytest.approx([ellipse, 0], abs=0.01)
