# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation: how many, where they go, and that they show what was predicted."""

import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.handlers import ValidationPanels

KINDS = ("click_1", "box")
SIZE = 32


def case(index, objects=2, kinds=KINDS):
    """A grey image with ``objects`` squares, each asked for by a click and by a box."""
    label = torch.zeros(objects, SIZE, SIZE, dtype=torch.uint8)
    for q in range(objects):
        label[q, 4 + 8 * q : 10 + 8 * q, 6:20] = 1
    prompts = {
        "click_1": {"points": torch.tensor([[[8.0, 6.0]]] * objects), "labels": torch.tensor([[1]] * objects)},
        "box": {
            "points": torch.tensor([[[6.0, 4.0], [19.0, 9.0]]] * objects),
            "labels": torch.tensor([[2, 3]] * objects),
        },
    }
    prompts["whole"] = prompts["box"]
    return {
        "image": torch.full((3, SIZE, SIZE), 0.5),
        "label": label,
        "prompts": {kind: prompts[kind] for kind in kinds},
        "case": json.dumps({"image": f"case_{index}.png", "slice": 0, "objects": [str(q) for q in range(objects)]}),
    }


class Fixed(torch.nn.Module):
    """Predict the same logits (Q, H, W) of each kind for each image."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def forward(self, image, prompts):
        return {"masks": {kind: self.masks[kind].unsqueeze(0) for kind in prompts}}


def nothing():
    return {kind: torch.full((2, SIZE, SIZE), -1.0) for kind in (*KINDS, "whole")}


def validate(folder, cases=3, count=4, masks=None, epochs=1, asked=KINDS):
    """Run validations of images with two objects; give the PNG files by name."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([case(i, kinds=asked) for i in range(cases)]), batch_size=1),
        network=Fixed(masks or nothing()),
        prepare_batch=PrepareBatchExtraInput({"prompts": "prompts"}),
        val_handlers=[ValidationPanels(str(folder / "log"), str(folder / "panels"), (*KINDS, "whole"), count)],
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
    assert list(validate(tmp_path, cases, count)) == [f"validation_{i}.jpg" for i in range(drawn)]


def test_each_validation_is_drawn_to_tensorboard_under_its_epoch(tmp_path):
    files = validate(tmp_path, cases=3, count=2, epochs=2)
    log = EventAccumulator(str(tmp_path / "log"), {"images": 0}).Reload()
    assert log.Tags()["images"] == ["validation/0", "validation/1"]
    for tag in log.Tags()["images"]:
        assert [event.step for event in log.Images(tag)] == [1, 2]
    height, width = files["validation_0.jpg"].shape[:2]
    assert (log.Images("validation/0")[0].height, log.Images("validation/0")[0].width) == (height, width)


@pytest.mark.parametrize("changed", KINDS)
def test_each_kind_of_prompt_shows_its_own_prediction_of_the_first_object(tmp_path, changed):
    masks = nothing()
    masks[changed][0, 20:30, 20:30] = 1
    masks["box"][1] = 1  # the second object, which is not drawn
    before, after = (
        columns(validate(tmp_path / name, cases=1, masks=m)["validation_0.jpg"], 1 + len(KINDS))
        for name, m in (("before", nothing()), ("after", masks))
    )
    differs = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert differs == [False] + [kind == changed for kind in KINDS]


def test_the_prompts_and_the_truth_are_drawn(tmp_path):
    """With nothing predicted, the three pictures still differ: a mask, a click, a box."""
    truth, click, box = columns(validate(tmp_path, cases=1)["validation_0.jpg"], 3)
    drawn = [picture[-512:] for picture in (truth, click, box)]  # without the titles
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize("asked", [("click_1",), ("click_1", "box"), ("whole",)])
def test_only_the_kinds_that_an_item_was_asked_by_are_drawn(tmp_path, asked):
    widths = 8 + (1 + len(asked)) * (512 + 8)
    assert validate(tmp_path, cases=1, asked=asked)["validation_0.jpg"].shape[1] == widths


def test_what_was_drawn_before_training_stands_above_what_is_drawn_later(tmp_path):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([case(0)]), batch_size=1),
        network=Fixed(nothing()),
        prepare_batch=PrepareBatchExtraInput({"prompts": "prompts"}),
        val_handlers=[ValidationPanels(str(tmp_path / "log"), str(tmp_path / "panels"), KINDS)],
    )
    shapes = []
    for epoch in (0, 1, 2):
        evaluator.run(epoch)
        shapes.append(np.asarray(Image.open(tmp_path / "panels" / "validation_0.jpg")).shape)
    assert shapes[1] == shapes[2] and shapes[1][1] == shapes[0][1]
    assert shapes[1][0] - 8 == 2 * (shapes[0][0] - 8)
