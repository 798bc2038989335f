# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation: how many, where they go, and that they show what was predicted."""

import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.handlers import ValidationPanels

KINDS = ("click_1", "box")
SIZE = 32


def case(index, objects=2):
    """A grey image with ``objects`` squares, each asked for by a click and by a box."""
    label = torch.zeros(objects, SIZE, SIZE, dtype=torch.uint8)
    for q in range(objects):
        label[q, 4 + 8 * q : 10 + 8 * q, 6:20] = 1
    points = torch.tensor([[[8.0, 6.0], [-1.0, -1.0]]] * objects + [[[6.0, 4.0], [19.0, 9.0]]] * objects)
    point_labels = torch.tensor([[1, -1]] * objects + [[2, 3]] * objects)
    described = {"image": f"case_{index}.png", "slice": 0, "objects": [str(q) for q in range(objects)]}
    return {
        "image": torch.full((3, SIZE, SIZE), 0.5),
        "label": label,
        "points": points,
        "point_labels": point_labels,
        "case": json.dumps(described),
    }


class Fixed(torch.nn.Module):
    """Predict the same masks (K * Q, H, W) for each image."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def forward(self, image):
        return self.masks.unsqueeze(0).expand(image.shape[0], -1, -1, -1)


def validate(folder, cases=3, count=4, masks=None, epochs=1):
    """Run validations of images with two objects; give the PNG files by name."""
    masks = torch.zeros(2 * len(KINDS), SIZE, SIZE) if masks is None else masks
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([case(i) for i in range(cases)]), batch_size=1),
        network=Fixed(masks),
        val_handlers=[ValidationPanels(str(folder / "log"), str(folder / "panels"), KINDS, count)],
    )
    for epoch in range(1, epochs + 1):
        evaluator.run(epoch)
    return {path.name: np.asarray(Image.open(path)) for path in sorted((folder / "panels").iterdir())}


def columns(picture, count):
    """Cut a row of panels into its panels, by figures.panels' own gap of 8 pixels."""
    width = (picture.shape[1] - 8) // count - 8
    return [picture[:, 8 + i * (width + 8) :][:, :width] for i in range(count)]


@pytest.mark.parametrize(("cases", "count", "drawn"), [(3, 4, 3), (3, 2, 2), (1, 1, 1)])
def test_the_first_cases_are_drawn_as_files(tmp_path, cases, count, drawn):
    assert list(validate(tmp_path, cases, count)) == [f"validation_{i}.png" for i in range(drawn)]


def test_each_validation_is_drawn_to_tensorboard_under_its_epoch(tmp_path):
    files = validate(tmp_path, cases=3, count=2, epochs=2)
    log = EventAccumulator(str(tmp_path / "log"), {"images": 0}).Reload()
    assert log.Tags()["images"] == ["validation/0", "validation/1"]
    for tag in log.Tags()["images"]:
        assert [event.step for event in log.Images(tag)] == [1, 2]
    height, width = files["validation_0.png"].shape[:2]
    assert (log.Images("validation/0")[0].height, log.Images("validation/0")[0].width) == (height, width)


@pytest.mark.parametrize("changed", range(len(KINDS)))
def test_each_kind_of_prompt_shows_its_own_prediction_of_the_first_object(tmp_path, changed):
    masks = torch.zeros(2 * len(KINDS), SIZE, SIZE)
    masks[2 * changed, 20:30, 20:30] = 1
    before, after = (
        columns(validate(tmp_path / name, cases=1, masks=m)["validation_0.png"], 1 + len(KINDS))
        for name, m in (("before", torch.zeros_like(masks)), ("after", masks))
    )
    differs = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert differs == [False] + [k == changed for k in range(len(KINDS))]


def test_the_prompts_and_the_truth_are_drawn(tmp_path):
    """With nothing predicted, the three pictures still differ: a mask, a click, a box."""
    truth, click, box = columns(validate(tmp_path, cases=1)["validation_0.png"], 3)
    drawn = [picture[-520:] for picture in (truth, click, box)]  # without the titles
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
