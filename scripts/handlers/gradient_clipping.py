# SPDX-License-Identifier: Apache-2.0
"""Gradient clipping at the optimiser's step."""

import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer


class GradientClipping:
    """Clip the norm of all gradients before each optimiser step.

    It hooks the step itself, so it is right with accumulated gradients (clips their sum, once) and under AMP (the
    scaler unscales before it steps). The largest norm of the epoch is reported as the metric ``gradient_norm``.

    Args:
        optimizer: whose parameters to clip.
        max_norm: largest norm that passes unchanged.
    """

    def __init__(self, optimizer: Optimizer, max_norm: float) -> None:
        self.max_norm = max_norm
        self.largest = torch.zeros(())
        optimizer.register_step_pre_hook(self.clip)

    def clip(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Clip what an optimiser is about to step by.

        Args:
            optimizer: whose parameters are clipped.
            args: of the hook, left alone.
            kwargs: of the hook, left alone.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        self.largest = torch.maximum(self.largest.to(norm.device), norm)  # stays on the device: no synchronisation

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def report(self, engine: Engine) -> None:
        engine.state.metrics["gradient_norm"] = float(self.largest)
        self.largest = torch.zeros(())
