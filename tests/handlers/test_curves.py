# SPDX-License-Identifier: Apache-2.0
"""The picture of a training."""

import math

from ignite.engine import Engine
from PIL import Image

from scripts.handlers import TrainingCurves


def train(curves, losses, scores):
    """Run an epoch for each loss, with a validation after each."""
    evaluator = curves.evaluator
    for loss, score in zip(losses, scores):
        epoch = 1 + len(curves.losses)
        evaluator.state.metrics, evaluator.state.epoch = {"dice/click_1": score, "dice/box": math.nan}, epoch
        curves.collect(evaluator)
        trainer = Engine(lambda engine, batch: None)
        trainer.state.metrics, trainer.state.epoch = {"train_loss": loss}, epoch
        curves(trainer)


def make(folder):
    evaluator = Engine(lambda engine, batch: None)
    return TrainingCurves(evaluator, str(folder), "train_loss", ["dice/click_1", "dice/box"])


def test_loss_and_scores_are_drawn_after_each_epoch(tmp_path):
    curves = make(tmp_path / "eval")
    train(curves, [3.0], [0.4])
    first = (tmp_path / "eval" / "curves.png").read_bytes()
    train(curves, [2.0, 1.0], [0.6, 0.7])
    assert Image.open(tmp_path / "eval" / "curves.png").size == (750, 525)
    assert (tmp_path / "eval" / "curves.png").read_bytes() != first
    assert curves.losses == {1: 3.0, 2: 2.0, 3: 1.0}
    assert curves.scores == {"dice/click_1": {1: 0.4, 2: 0.6, 3: 0.7}, "dice/box": {}}


def test_a_resumed_run_draws_what_was_before_it_too(tmp_path):
    whole, first, again = (make(tmp_path / name) for name in ("whole", "first", "again"))
    train(whole, [3.0, 2.0], [0.4, 0.6])
    train(first, [3.0], [0.4])
    again.load_state_dict(first.state_dict())
    train(again, [2.0], [0.6])
    assert (tmp_path / "again" / "curves.png").read_bytes() == (tmp_path / "whole" / "curves.png").read_bytes()
