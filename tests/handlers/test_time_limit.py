# SPDX-License-Identifier: Apache-2.0
"""A limit of time that all processes keep together."""

import ignite.distributed as idist
import pytest
from ignite.engine import Engine, Events

from scripts.handlers import TimeLimit


@pytest.mark.parametrize(("seconds", "others", "epochs"), [(1000, 0.0, 3), (1, 0.0, 1), (1000, 1.0, 1)])
def test_a_run_ends_when_the_time_of_any_process_is_over(monkeypatch, seconds, others, epochs):
    monkeypatch.setattr(idist, "all_reduce", lambda own, how: max(own, others))
    engine = Engine(lambda engine, batch: None)
    limit = TimeLimit(seconds)
    limit.start_time -= 2
    engine.add_event_handler(Events.EPOCH_COMPLETED, limit)
    assert engine.run([0], max_epochs=3).epoch == epochs
