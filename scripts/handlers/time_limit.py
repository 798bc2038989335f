# SPDX-License-Identifier: Apache-2.0
"""A limit of time that all processes keep together."""

import time

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import TimeLimit as LocalTimeLimit


class TimeLimit(LocalTimeLimit):
    """Ignite's TimeLimit for several processes: when it is over for one, all end after the same epoch.

    Each by its own clock, one might go on and wait for the others for good.

    Args:
        limit_sec: seconds from now.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer: it ends after the epoch in which the time is over."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        is_over = float(time.time() - self.start_time > self.limit_sec)
        if idist.all_reduce(is_over, "MAX"):
            self.logger.info("Reached the time limit: %s sec. Stop training", self.limit_sec)
            engine.terminate()
