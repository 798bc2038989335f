# SPDX-License-Identifier: Apache-2.0
"""The end of a training that no longer gets better."""

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping


class EarlyStop(EarlyStopping):
    """Ignite's EarlyStopping by a metric of an evaluator, as a trainer's handler.

    Ignite's own wants the trainer before there is one, and as MONAI attaches it, it forgets the best score whenever a
    validation starts.

    Args:
        evaluator: that validates after epochs.
        metric: its metric, higher is better; nothing stops nothing.
        patience: validations without a better value before training ends.
    """

    def __init__(self, evaluator: Engine, metric: str | None, patience: int) -> None:
        super().__init__(patience, lambda engine: engine.state.metrics[metric], trainer=evaluator)
        self.evaluator = evaluator
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self.trainer = engine
        if self.metric is not None:
            self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self)
