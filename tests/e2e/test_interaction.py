# SPDX-License-Identifier: Apache-2.0
"""Interaction as a user starts it: clicks that correct, several objects, classes by one prompt, crops, and the
settings that turn each off."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.e2e.bundle import EVALUATE, INFERENCE, SMALL, TRAIN, places, run_warm
from tests.e2e.datasets import make_cells
from tests.e2e.logs import read_log

pytestmark = pytest.mark.slow

CLASSES = "{'cell': [1, 2], 'nucleus': [2]}"
ADDED = ("background_embeddings", "mask_downscaling", "no_mask_embed")


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 1, "gradient_rounds": 1},
        {"mask_feedback": False},
        {"objects_per_image": 1},
        {"whole_prob": 1.0},
        {"train_prompts": "{'click_box': 1.0}"},
        {"crop#below": 0},
        {"crop#below": 64, "crop#min_side": 8, "crop_prob": 1.0},
    ],
    ids=str,
)
def test_each_setting_of_interaction_trains_and_validates(dataset, folder, settings):
    result = run_warm("training", TRAIN, **SMALL, **settings, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    scalars = read_log(folder / "eval" / "tensorboard").Tags()["scalars"]
    assert {"dice/click_1", "dice/click_3", "dice/click_5"} <= set(scalars)


@pytest.mark.parametrize("rounds", [1, 4])
def test_background_clicks_and_masks_are_learned_from_corrections_alone(dataset, folder, rounds):
    settings = {**SMALL, "max_epochs": 2, "rounds": rounds, "gradient_rounds": 1, "pretrained": "none"}
    result = run_warm("training", TRAIN, **settings, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    state = torch.load(folder / "models" / "model_final.pt", weights_only=True)["model"]
    last = state["prompt_encoder.mask_downscaling.6.weight"]
    assert bool(last.any()) == (rounds > 1)
    assert state["prompt_encoder.no_mask_embed.weight"].any()


def test_one_prompt_gives_all_classes_each_by_its_own_mask(folder):
    data = make_cells(folder / "data")
    where = {"dataset_dir": data, "classes": CLASSES, "class_masks": True, **places(folder)}
    result = run_warm("training", TRAIN, **SMALL, **where)
    assert result.code == 0, result.err
    result = run_warm("evaluating", EVALUATE, **SMALL, **where)
    assert result.code == 0, result.err
    report = json.loads((folder / "eval" / "metrics.json").read_text())
    assert report["objects"] == 2
    assert {"dice/click_1/cell", "dice/click_1/nucleus", "dice/whole/cell"} <= set(report)

    image = data / "images" / "cell_0.png"
    asked = {"points": "[[32,32,1]]", "ckpt_path": folder / "models" / "model.pt"}
    result = run_warm("inferring", INFERENCE, dataset_dir=image, output_dir=folder / "out", **asked)
    assert result.code == 0, result.err
    labels = np.asarray(Image.open(folder / "out" / "cell_0_mask.png"))
    assert labels.shape == (64, 64)
    assert labels.max() <= 2


@pytest.mark.parametrize("classes", ["{'a': [1], 'b': [2], 'c': [1, 2], 'd': [3]}", "null"])
def test_more_classes_than_masks_or_none_are_refused_in_one_line(folder, classes):
    where = {"dataset_dir": make_cells(folder / "data"), "class_masks": True, **places(folder)}
    result = run_warm("training", TRAIN, **SMALL, **where, **({} if classes == "null" else {"classes": classes}))
    assert result.code == 1
    assert len(result.errors) == 1, result.err
    assert "class_masks" in result.errors[0]
