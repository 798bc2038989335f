# SPDX-License-Identifier: Apache-2.0
"""How long a training will go on."""

import logging
import re
from types import SimpleNamespace

import pytest
from ignite.engine import Engine

from scripts.handlers import TimeLeft, time_left


@pytest.mark.parametrize("done", [0, 2])
def test_the_mean_epoch_of_this_run_counts(caplog, monkeypatch, done):
    caplog.set_level(logging.INFO)
    seconds = iter([100.0, 160.0, 200.0, 250.0])  # the start, then the end of each epoch
    monkeypatch.setattr(time_left, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    engine = Engine(lambda engine, batch: None)
    engine.state.max_epochs = done + 3
    engine.state.epoch = engine.state.iteration = done
    engine.state.epoch_length = 1
    TimeLeft().attach(engine)
    engine.run([0], max_epochs=done + 3)
    found = re.findall(r"epoch (\d+) of (\d+): ([\d.]+) s each, at most ([\d:]+) to go", caplog.text)
    last = str(done + 3)
    assert found == [(str(done + 1), last, "60.0", "0:02:00"), (str(done + 2), last, "50.0", "0:00:50")]
