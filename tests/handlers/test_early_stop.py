# SPDX-License-Identifier: Apache-2.0
"""A training ends where a metric no longer gets better."""

import pytest
from ignite.engine import Engine, Events

from scripts.handlers import EarlyStop


def train(scores, patience, early_stop=None, metric="dice", epochs=None):
    evaluator, trainer = (Engine(lambda engine, batch: None) for _ in range(2))
    values = iter(scores)
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(dice=next(values)))
    stop = EarlyStop(evaluator, metric, patience)
    if early_stop is not None:
        stop.load_state_dict(early_stop.state_dict())
    stop.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0]))
    trainer.run([0], max_epochs=epochs or len(scores))
    return trainer.state.epoch, stop


@pytest.mark.parametrize(
    ("scores", "patience", "ended"),
    [([0.5, 0.4, 0.4, 0.9], 2, 3), ([0.5, 0.4, 0.6, 0.5], 2, 4), ([0.5, 0.5, 0.6], 1, 2)],
)
def test_it_ends_after_so_many_validations_without_a_better_value(scores, patience, ended):
    assert train(scores, patience)[0] == ended


def test_a_resumed_run_remembers_the_best_value_and_how_long_ago_it_was():
    _, stop = train([0.9, 0.5], patience=3)
    assert train([0.6, 0.7, 0.8], patience=3, early_stop=stop)[0] == 2


def test_without_a_metric_nothing_ends():
    assert train([0.5, 0.4, 0.3], patience=1, metric=None)[0] == 3
