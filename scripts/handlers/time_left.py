# SPDX-License-Identifier: Apache-2.0
"""How long a training will go on."""

import logging
import time
from datetime import timedelta

from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class TimeLeft:
    """Say after each epoch how long it took, its validation and its saving included, and how long the others will.

    Attach it after all else that happens in an epoch. Ignite's own lines tell of the epoch alone.
    """

    def __init__(self) -> None:
        self.started = 0.0
        self.first = 0  # epochs done before this run

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        if not self.started:  # not when the run starts: it may validate first
            self.started, self.first = time.perf_counter(), engine.state.epoch - 1

    def __call__(self, engine: Engine) -> None:
        epoch, last = engine.state.epoch, engine.state.max_epochs
        mean = (time.perf_counter() - self.started) / (epoch - self.first)
        if epoch < last:
            left = timedelta(seconds=round(mean * (last - epoch)))
            logger.info(f"epoch {epoch} of {last}: {mean:.1f} s each, at most {left} to go")
