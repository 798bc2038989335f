# SPDX-License-Identifier: Apache-2.0
"""A table of a training on the console, one line an epoch."""

import math
import time
from collections.abc import Mapping
from datetime import timedelta

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator

WIDTH = 10


class EpochTable:
    """Print the loss, scores and time left of each epoch; the first line is of the weights before training.

    Args:
        evaluator: that validates before training and after epochs.
        loss: name of the trainer's metric.
        scores: heads of columns by the name of the evaluator's metric.
    """

    def __init__(self, evaluator: Evaluator, loss: str, scores: Mapping[str, str]) -> None:
        self.evaluator = evaluator
        self.loss = loss
        self.scores = dict(scores)
        self.validated = False
        self.started = 0.0
        self.first = 0  # epochs done before this run
        self.has_head = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handlers that validate."""
        if idist.get_rank() > 0:
            return
        self.evaluator.add_event_handler(Events.COMPLETED, self.note)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def note(self, evaluator: Engine) -> None:
        self.validated = True

    def start(self, engine: Engine) -> None:
        """Print what was known before the first epoch; validation before it is no part of an epoch's time."""
        if not self.started:
            self.started, self.first = time.perf_counter(), engine.state.epoch - 1
            if self.validated:
                self.line(str(self.first), "", "")

    def __call__(self, engine: Engine) -> None:
        epoch, last = engine.state.epoch, engine.state.max_epochs
        seconds = (time.perf_counter() - self.started) / (epoch - self.first) * (last - epoch)
        left = str(timedelta(seconds=round(seconds))) if epoch < last else ""
        self.line(str(epoch), f"{engine.state.metrics[self.loss]:.4f}", left)

    def line(self, epoch: str, loss: str, left: str) -> None:
        """Print one line, and the head of the table before the first.

        Args:
            epoch: its number.
            loss: of it.
            left: time until the last one is done, at most.
        """
        values = [
            self.evaluator.state.metrics.get(name, math.nan) if self.validated else math.nan for name in self.scores
        ]
        cells = [epoch, loss, *("" if math.isnan(value) else f"{value:.4f}" for value in values), left]
        if not self.has_head:
            print("".join(f"{head:>{WIDTH}}" for head in ("epoch", "loss", *self.scores.values(), "time left")))
        print("".join(f"{cell:>{WIDTH}}" for cell in cells).rstrip(), flush=True)
        self.has_head, self.validated = True, False
