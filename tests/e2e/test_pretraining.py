# SPDX-License-Identifier: Apache-2.0
"""Pretraining on a mixture as a user starts it, in pieces: it goes on exactly, ends in time, and keeps the average."""

import json

import pytest
import torch

from tests.e2e.bundle import TRAIN, network_of, places, run_warm
from tests.e2e.datasets import make_cells, make_folder

pytestmark = pytest.mark.slow

PRETRAIN = [TRAIN, "configs/pretrain.yaml"]
TINY = {
    "image_size": 64,
    "batch_size": 2,
    "steps_per_epoch": 3,
    "val_images": 2,
    "num_workers": 0,
    "pretrained": "none",
}


@pytest.fixture(scope="module")
def mixture(shared):
    parts = [
        {"dataset_dir": str(make_folder(shared / "lesions")), "weight": 3},
        {"dataset_dir": str(make_cells(shared / "cells")), "classes": {"cell": [1, 2]}, "components": True},
    ]
    return repr(parts)


def pretrain(folder, mixture, **settings):
    result = run_warm("training", PRETRAIN, **{**TINY, "mixture": mixture, **settings}, **places(folder))
    assert result.code == 0, result.err
    return result


def load(path):
    return torch.load(path, weights_only=True)


def test_a_run_in_two_pieces_ends_where_one_ends_that_was_not_stopped(folder, mixture):
    pretrain(folder / "whole", mixture, max_epochs=4, val_interval=2)
    pretrain(folder / "pieces", mixture, max_epochs=2, val_interval=2)
    last = folder / "pieces" / "models" / "last.pth"
    result = pretrain(folder / "pieces", mixture, max_epochs=4, val_interval=2, resume_path=last)
    assert "after epoch 2" in result.out
    ours, theirs = (load(folder / name / "models" / "last.pth") for name in ("pieces", "whole"))
    assert ours["trainer"]["iteration"] == theirs["trainer"]["iteration"] == 4 * 3
    losses, expected = (last["curves"]["losses"] for last in (ours, theirs))
    assert losses.keys() == expected.keys() == {1, 2, 3, 4}
    assert losses[1] == expected[1] and losses == pytest.approx(expected, rel=0.02)
    for kept in ("model", "average"):  # in half precision, from which the second piece went on
        assert all(torch.allclose(ours[kept][k], v, rtol=5e-3, atol=2e-3) for k, v in theirs[kept].items()), kept


def test_what_is_kept_of_a_run_is_small(folder, mixture):
    pretrain(folder, mixture, max_epochs=1, val_interval=1000, second_dir=folder / "second")
    assert (folder / "second" / "last.pth").read_bytes() == (folder / "models" / "last.pth").read_bytes()
    weights = sum(p.numel() for p in network_of(TRAIN).parameters())
    assert (folder / "models" / "last.pth").stat().st_size < 6.3 * weights  # of 16 bytes a weight in all


def test_drawn_pictures_and_superpixels_train_beside_files(folder, shared):
    pytest.importorskip("skimage")
    parts = [{"dataset_dir": str(make_folder(shared / "pictures")), "superpixels": 0.5}, {"made": 10, "weight": 2}]
    result = pretrain(folder, repr(parts), max_epochs=1, val_interval=1000, steps_per_epoch=6)
    assert "objects on" in result.out and (folder / "models" / "model_final.pt").is_file()


def test_a_run_ends_after_the_epoch_in_which_its_time_is_over(folder, mixture):
    pretrain(folder, mixture, minutes=0.02, val_interval=1000)
    last = load(folder / "models" / "last.pth")
    assert last["trainer"]["iteration"] % 3 == 0 and last["trainer"]["iteration"] < 3 * 100
    assert (folder / "models" / "model_final.pt").is_file()


def test_the_moving_average_is_kept_and_scored_set_by_set(folder, mixture):
    pretrain(folder, mixture, max_epochs=2, val_interval=1)
    final, last = load(folder / "models" / "model_final.pt"), load(folder / "models" / "last.pth")
    assert all(torch.equal(final["model"][k].half(), v.half()) for k, v in last["average"].items())
    key = "image_encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(final["model"][key], last["model"][key])
    assert final["settings"]["adapters"] is None and final["settings"]["image_size"] == 64
    report = json.loads((folder / "eval" / "metrics.json").read_text())
    assert {"dice/click_1/lesions", "dice/box/cells"} <= set(report)


def test_the_learning_rate_is_constant_and_falls_in_the_cooldown(folder, mixture):
    settings = {"warmup_steps": 1, "learning_rate": 0.001, "val_interval": 1000}
    pretrain(folder, mixture, max_epochs=2, **settings)
    last = folder / "models" / "last.pth"
    assert load(last)["optimizer"]["param_groups"][0]["lr"] == 0.001
    pretrain(folder, mixture, max_epochs=4, cooldown_epochs=2, resume_path=last, **settings)
    assert load(last)["optimizer"]["param_groups"][0]["lr"] == 0


def test_without_a_mixture_it_says_what_to_give(folder):
    result = run_warm("training", PRETRAIN, **TINY, **places(folder))
    assert result.code == 1
    assert "give the data sets to pretrain on" in result.errors[0]


def test_weights_are_scored_on_the_mixture_without_training(folder, mixture):
    result = run_warm("validating", PRETRAIN, **{**TINY, "mixture": mixture}, **places(folder))
    assert result.code == 0, result.err
    assert {"dice/click_1/lesions", "dice/box/cells"} <= set(json.loads((folder / "eval" / "metrics.json").read_text()))
    assert not (folder / "models").exists()
