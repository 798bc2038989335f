# SPDX-License-Identifier: Apache-2.0
"""What training was good for: a validation before it, and one line after it."""

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ..errors import InputError

logger = logging.getLogger(__name__)


class BaselineValidation:
    """Validate before the first epoch, so that the best weights are never worse than those training began from.

    At the end a line says what the key metric was before, and what it is of the best weights.

    Args:
        evaluator: that validates after epochs as well; one without data is left alone.
        metric: its key metric; nothing where there is no validation.
        interval: epochs between validations.
    """

    def __init__(self, evaluator: Evaluator, metric: str | None, interval: int = 1) -> None:
        self.interval = interval
        self.evaluator = evaluator
        self.metric = metric
        self.values: list[float] = []  # before training, then after each validation

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Raises:
            InputError: when no epoch would be validated.
        """
        if self.metric is None:
            return
        if self.interval > engine.state.max_epochs:
            raise InputError(
                f"val_interval {self.interval} is beyond max_epochs {engine.state.max_epochs}: no epoch would be "
                "validated"
            )
        self.evaluator.add_event_handler(Events.COMPLETED, self.collect)
        engine.add_event_handler(Events.STARTED, self.validate)
        engine.add_event_handler(Events.COMPLETED, self)

    def collect(self, evaluator: Engine) -> None:
        self.values.append(float(evaluator.state.metrics[self.metric]))

    def validate(self, trainer: Engine) -> None:
        """Validate a run that has not begun."""
        if trainer.state.epoch == 0:
            logger.info("validating the weights that training begins from")
            self.evaluator.run(0)

    def __call__(self, trainer: Engine) -> None:
        if len(self.values) < 2:
            return
        before, best = self.values[0], max(self.values[1:])
        logger.info(f"{self.metric}: {before:.4f} before training -> {best:.4f} with the best weights of it")
        if best <= before:
            logger.warning(
                f"no epoch was better than the weights training began from, which model.pt holds now: try a lower "
                f"learning_rate than {trainer.optimizer.defaults['lr']:g}, more epochs, or another of configs/finetune"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.values = list(state_dict["values"])
