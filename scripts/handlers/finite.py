# SPDX-License-Identifier: Apache-2.0
"""A run whose loss is no number any more ends, with its last good checkpoint."""

import math
from collections.abc import Callable

from ignite.engine import Engine, Events

from ..errors import InputError


class StopOnNonFinite:
    """End a run as soon as its loss is NaN or infinite; what was saved after the last epoch stays as it is.

    Ignite's TerminateOnNan ends it as if it were done, so that the broken weights are saved as the final ones.

    Args:
        output_transform: gives the loss of the engine's output.
    """

    def __init__(self, output_transform: Callable) -> None:
        self.output_transform = output_transform

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = float(self.output_transform(engine.state.output))
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} in epoch {engine.state.epoch}, iteration {engine.state.iteration}: give a "
                "lower learning_rate, and --resume_path last.pth to go on from the epoch before"
            )
