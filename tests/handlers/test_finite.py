# SPDX-License-Identifier: Apache-2.0
"""A loss that is no number any more ends the run."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine

from scripts.errors import InputError
from scripts.handlers import StopOnNonFinite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_ends_where_its_loss_is_no_number(value):
    losses, saved = iter([1.0, 0.5, 0.4, value, 0.3, 0.2]), []
    engine = Engine(lambda engine, batch: [{"loss": torch.tensor(next(losses))}])
    StopOnNonFinite(from_engine(["loss"], first=True)).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: saved.append(engine.state.epoch))
    with pytest.raises(InputError, match=r"became (nan|inf) in epoch 2, iteration 4: give a lower"):
        engine.run(range(2), max_epochs=3)
    assert saved == [1]
