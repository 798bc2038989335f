# SPDX-License-Identifier: Apache-2.0
"""AdaLoRA's share of training: orthogonal factors, and ranks where they matter (Zhang et al., 2023)."""

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from ..networks.adapters.adalora import AdaLoRALinear, adalora_layers, orthogonality


class RankAllocation:
    """Train AdaLoRA as its paper does; a network without it is left alone.

    To the loss it adds a weight times :func:`scripts.networks.adapters.adalora.orthogonality`. After each step of the
    optimiser it updates how much each singular value matters: the sensitivity |w dL/dw| of the value and, in the mean,
    of its two vectors, each smoothed, times the smoothed uncertainty (equations 8 to 11). Now and then all but the
    best values of all layers become zero; how many stay falls by a cubic (equation 12) from all to the layers'
    ``target_rank``.

    Args:
        network: with or without AdaLoRA.
        optimizer: of its parameters.
        total_steps: of the optimiser, in the whole run.
        warmup: share of them before the number of values begins to fall; this and ``final`` are
            Medical-SAM-Adapter's.
        final: share of them, the last ones, after it has fallen.
        interval: steps between two choices of values.
        beta: share of the past in what is smoothed, 0.85 in the paper.
        weight: of the orthogonality in the loss.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 1 / 6,
        final: float = 0.5,
        interval: int = 10,
        beta: float = 0.85,
        weight: float = 0.1,
    ) -> None:
        self.layers = adalora_layers(network)
        self.start, self.end = round(warmup * total_steps), max(round((1 - final) * total_steps), 1)
        self.interval = interval
        self.beta = beta
        self.weight = weight
        self.steps = 0
        self.smoothed: dict[str, tuple[Tensor, Tensor]] = {}  # sensitivity and uncertainty of each parameter
        self.kept: Tensor | None = None  # the singular values that stay at the end
        if self.layers:
            optimizer.register_step_post_hook(self.follow)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if self.layers:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.add_orthogonality)

    def add_orthogonality(self, engine: Engine) -> None:
        """Add to the loss of a trainer's step how far the factors are from orthogonal ones."""
        added = self.weight * orthogonality(list(self.layers.values()))
        engine.state.output[CommonKeys.LOSS] = engine.state.output[CommonKeys.LOSS] + added

    def budget(self, step: int) -> int:
        """Return how many singular values stay in all layers.

        Args:
            step: of the optimiser, from 1 on.
        """
        first = sum(len(layer.adalora_e) for layer in self.layers.values())
        last = sum(layer.target_rank for layer in self.layers.values())
        left = 1 - (step - self.start) / max(self.end - self.start, 1)
        return int(last + (first - last) * min(max(left, 0.0), 1.0) ** 3)

    @torch.no_grad()
    def follow(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Update what matters, and choose, after a step of the optimiser.

        Args:
            optimizer: that stepped.
            args: of the hook, left alone.
            kwargs: of the hook, left alone.
        """
        self.steps += 1
        if self.kept is None:
            scores = torch.cat([self.importance(name, layer) for name, layer in self.layers.items()])
            if self.steps >= self.end:
                self.kept = self.best(scores)
            elif self.steps > self.start and self.steps % self.interval == 0:  # what became zero may come back
                self.keep(self.best(scores))
        if self.kept is not None:
            self.keep(self.kept)

    def best(self, scores: Tensor) -> Tensor:
        """Return which singular values of all layers matter most, as many as the budget has.

        Args:
            scores: (N) of all layers, one after the other.
        """
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[scores.topk(self.budget(self.steps)).indices] = True
        return kept

    def keep(self, kept: Tensor) -> None:
        """Set the other singular values to zero.

        Args:
            kept: (N) bool of all layers, one after the other.
        """
        for layer, own in zip(self.layers.values(), kept.split([len(e.adalora_e) for e in self.layers.values()])):
            layer.adalora_e.mul_(own.to(layer.adalora_e))

    def importance(self, name: str, layer: AdaLoRALinear) -> Tensor:
        """Return how much each singular value of a layer matters (rank).

        Args:
            name: of the layer.
            layer: with gradients.
        """
        parts = []
        for own in layer.adapter_parameters():
            parameter = layer.get_parameter(own)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            now = (parameter * gradient).abs()
            before = self.smoothed.get(f"{name}.{own}", (torch.zeros_like(now), torch.zeros_like(now)))
            sensitivity = self.beta * before[0].to(now) + (1 - self.beta) * now
            uncertainty = self.beta * before[1].to(now) + (1 - self.beta) * (now - sensitivity).abs()
            self.smoothed[f"{name}.{own}"] = sensitivity, uncertainty
            parts.append(sensitivity * uncertainty)
        a, e, b = parts
        return e + a.mean(1) + b.mean(0)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on from."""
        smoothed = {name: list(pair) for name, pair in self.smoothed.items()}
        return {"steps": self.steps, "smoothed": smoothed, "kept": self.kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what was saved."""
        self.steps, self.kept = state_dict["steps"], state_dict["kept"]
        self.smoothed = {name: (pair[0], pair[1]) for name, pair in state_dict["smoothed"].items()}
