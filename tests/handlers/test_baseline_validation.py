# SPDX-License-Identifier: Apache-2.0
"""What training was good for: validated before, compared after."""

import logging

import pytest
from ignite.engine import Engine, Events

from scripts.errors import InputError
from scripts.handlers import BaselineValidation


class Evaluator(Engine):
    """Gives one score after the other."""

    def __init__(self, scores):
        super().__init__(lambda engine, batch: None)
        self.scores = iter(scores)
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self.state.metrics.update(dice=next(self.scores)))

    def run(self, epoch=1):
        super().run([0], max_epochs=1)


class Optimizer:
    defaults = {"lr": 0.01}


def train(scores, epochs, outcome=None, start=0):
    evaluator = Evaluator(scores)
    trainer = Engine(lambda engine, batch: None)
    trainer.optimizer = Optimizer()
    outcome = outcome or BaselineValidation(evaluator, "dice")
    outcome.evaluator = evaluator
    trainer.state.max_epochs = epochs
    outcome.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run())
    trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = start, start, 1
    trainer.run([0], max_epochs=epochs)
    return outcome


def test_it_says_what_was_before_and_what_the_best_is(caplog):
    caplog.set_level(logging.INFO)
    train([0.5, 0.7, 0.6], epochs=2)
    assert "dice: 0.5000 before training -> 0.7000 with the best weights of it" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_it_warns_where_nothing_got_better(caplog):
    train([0.7, 0.7, 0.6], epochs=2)
    assert "no epoch was better than the weights training began from" in caplog.text
    assert "a lower learning_rate than 0.01" in caplog.text


def test_a_resumed_run_knows_what_was_before_it(caplog):
    caplog.set_level(logging.INFO)
    first = train([0.5, 0.6], epochs=1)
    again = BaselineValidation(None, "dice")
    again.load_state_dict(first.state_dict())
    caplog.clear()
    train([0.55], epochs=2, outcome=again, start=1)
    assert "dice: 0.5000 before training -> 0.6000" in caplog.text


def test_without_validation_there_is_nothing_to_say(caplog):
    evaluator, trainer = Evaluator([]), Engine(lambda engine, batch: None)
    BaselineValidation(evaluator, None).attach(trainer)
    trainer.run([0], max_epochs=1)
    assert not caplog.records


def test_an_interval_that_no_run_reaches_is_refused():
    trainer = Engine(lambda engine, batch: None)
    trainer.state.max_epochs = 3
    with pytest.raises(InputError, match="val_interval 5 is beyond max_epochs 3"):
        BaselineValidation(Evaluator([]), "dice", interval=5).attach(trainer)
