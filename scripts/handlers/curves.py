# SPDX-License-Identifier: Apache-2.0
"""The curves of a training, as one picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ..reports.curves import plot_training


class TrainingCurves:
    """Draw the loss and some scores by epoch into ``curves.png``, anew after each epoch.

    Args:
        evaluator: that validates after epochs.
        output_dir: folder to write to.
        loss: name of the trainer's metric.
        scores: names of the evaluator's metrics.
    """

    def __init__(self, evaluator: Evaluator, output_dir: str, loss: str, scores: Sequence[str]) -> None:
        self.evaluator = evaluator
        self.path = Path(output_dir) / "curves.png"
        self.loss = loss
        self.losses: dict[int, float] = {}
        self.scores: dict[str, dict[int, float]] = {name: {} for name in scores}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after what validates."""
        self.evaluator.add_event_handler(Events.COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def collect(self, evaluator: Engine) -> None:
        """Take the scores of a validation, whose epoch is the trainer's."""
        for name, values in self.scores.items():
            value = float(evaluator.state.metrics.get(name, math.nan))
            if math.isfinite(value):
                values[evaluator.state.epoch] = value

    def __call__(self, trainer: Engine) -> None:
        self.losses[trainer.state.epoch] = float(trainer.state.metrics[self.loss])
        if idist.get_rank() > 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plot_training(self.path, self.losses, {name: values for name, values in self.scores.items() if values})

    def state_dict(self) -> dict[str, Any]:
        return {"losses": dict(self.losses), "scores": {name: dict(values) for name, values in self.scores.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.losses = dict(state_dict["losses"])
        self.scores.update({name: dict(values) for name, values in state_dict["scores"].items()})
