# SPDX-License-Identifier: Apache-2.0
"""AdaLoRA (Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023).

What is added to a weight has the form of a singular value decomposition. Training keeps its factors nearly orthogonal
and sets those singular values to zero that matter least, in all layers together:
:class:`scripts.handlers.RankAllocation` does both. Written from the paper; Medical-SAM-Adapter adapts the same layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .linear import MSA_LAYERS, AdaptedLinear
from .places import find_layers

DEFAULTS: dict[str, Any] = {"targets": MSA_LAYERS, "rank": 6, "target_rank": 4, "alpha": 1.0, "last_blocks": None}


class AdaLoRALinear(AdaptedLinear):
    """A linear layer whose weight W becomes W + alpha / rank * B diag(e) A.

    Args:
        linear: the layer, whose parameters it takes over.
        rank: singular values at the start.
        target_rank: singular values of a layer at the end, in the mean of all layers.
        alpha: the scale is this by the rank.
    """

    def __init__(self, linear: nn.Linear, rank: int, target_rank: int, alpha: float) -> None:
        super().__init__(linear, alpha / rank)
        self.target_rank = min(target_rank, rank)
        self.adalora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.adalora_e = nn.Parameter(linear.weight.new_zeros(rank))
        self.adalora_b = nn.Parameter(linear.weight.new_empty(linear.out_features, rank))
        nn.init.normal_(self.adalora_a, std=0.02)
        nn.init.normal_(self.adalora_b, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        y = F.linear(x, self.weight, self.bias)
        if not self.enabled:
            return y
        return y + F.linear(F.linear(x, self.adalora_a) * (self.adalora_e * self.scale), self.adalora_b)

    def adapter_parameters(self) -> list[str]:
        """Name the parameters that adapt."""
        return ["adalora_a", "adalora_e", "adalora_b"]

    def is_fresh(self) -> bool:
        """Return whether it adds nothing yet."""
        return not bool(self.adalora_e.any())

    def added_weight(self) -> Tensor:
        """Return what is added to the weight (out_features, in_features)."""
        return self.scale * (self.adalora_b * self.adalora_e) @ self.adalora_a


def adalora_layers(network: nn.Module) -> dict[str, AdaLoRALinear]:
    """Return the layers of AdaLoRA by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, AdaLoRALinear)}


def orthogonality(layers: Sequence[AdaLoRALinear]) -> Tensor:
    """Return how far the factors of layers are from orthogonal ones.

    The paper's equation 4 has the square of the Frobenius norm; its published code, and Medical-SAM-Adapter after it,
    take the norm itself and the mean over all factors, as here.

    Args:
        layers: at least one.

    Returns:
        The mean over all A and B of the Frobenius norms of A A^T - I and B^T B - I.
    """
    factors = [factor for layer in layers for factor in (layer.adalora_a, layer.adalora_b.T)]
    return torch.stack([torch.linalg.norm(f @ f.T - torch.eye(len(f)).to(f)) for f in factors]).mean()


def add_adalora(
    network: nn.Module, targets: Sequence[str], rank: int, target_rank: int, alpha: float, last_blocks: int | None
) -> None:
    """Put AdaLoRA into linear layers; one of queries, keys and values at once is adapted as a whole.

    Args:
        network: changed in place.
        targets: patterns of the layers' names.
        rank: singular values of a layer at the start.
        target_rank: singular values of a layer at the end, in the mean.
        alpha: the scale is this by the rank.
        last_blocks: of the image encoder, how many are adapted, the last ones; nothing is all.

    Raises:
        InputError: when a pattern matches no layer.
    """
    for name, layer in find_layers(network, targets, last_blocks).items():
        network.set_submodule(name, AdaLoRALinear(layer, rank, target_rank, alpha))


def read_adalora(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings of AdaLoRA, as its tensors tell them.

    Args:
        state: tensors of AdaLoRA by name.

    Returns:
        ``targets`` and ``rank``; the others are no tensor's shape, so the usual ones are taken.
    """
    layers = sorted({name.rpartition(".")[0] for name in state})
    rank = next(len(value) for name, value in state.items() if name.endswith("adalora_e"))
    return {**DEFAULTS, "targets": layers, "rank": rank}
