# SPDX-License-Identifier: Apache-2.0
"""LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022), where Medical-SAM-Adapter has it.

There it adapts queries and values of the encoder's attentions and both layers of its MLPs, at rank 4 and a scale of a
quarter. Written from the paper and from measurements.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .linear import MSA_LAYERS, AdaptedLinear
from .places import find_layers

DEFAULTS: dict[str, Any] = {"targets": MSA_LAYERS, "rank": 4, "alpha": 1.0, "keys": False, "last_blocks": None}


class LoRALinear(AdaptedLinear):
    """A linear layer whose weight W becomes W + alpha / rank * B A, by parts of its rows.

    Args:
        linear: the layer, whose parameters it takes over.
        rank: of each part.
        alpha: the scale is this by the rank.
        parts: rows are cut into so many parts of equal size, such as queries, keys and values.
        adapted: which of them are adapted.
    """

    def __init__(
        self, linear: nn.Linear, rank: int, alpha: float, parts: int = 1, adapted: Sequence[int] = (0,)
    ) -> None:
        super().__init__(linear, alpha / rank)
        self.parts, self.adapted = parts, list(adapted)
        count = len(self.adapted)
        self.lora_a = nn.Parameter(linear.weight.new_empty(count, rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(count, linear.out_features // parts, rank))
        for each in self.lora_a:
            nn.init.kaiming_uniform_(each, a=math.sqrt(5))  # as of nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        y = F.linear(x, self.weight, self.bias)
        if not self.enabled:
            return y
        down = F.linear(x, self.lora_a.flatten(0, 1)).unflatten(-1, (len(self.adapted), -1)).unsqueeze(-2)
        up = (down @ self.lora_b.transpose(1, 2)).squeeze(-2) * self.scale  # (..., adapted, out_features / parts)
        rows = list(y.unflatten(-1, (self.parts, -1)).unbind(-2))
        for index, part in enumerate(self.adapted):
            rows[part] = rows[part] + up[..., index, :]
        return torch.cat(rows, -1)

    def adapter_parameters(self) -> list[str]:
        """Name the parameters that adapt."""
        return ["lora_a", "lora_b"]

    def is_fresh(self) -> bool:
        """Return whether it adds nothing yet."""
        return not bool(self.lora_b.any())

    def added_weight(self) -> Tensor:
        """Return what is added to the weight (out_features, in_features)."""
        added = torch.zeros_like(self.weight).unflatten(0, (self.parts, -1))
        added[self.adapted] = self.scale * (self.lora_b @ self.lora_a)
        return added.flatten(0, 1)


def add_lora(
    network: nn.Module, targets: Sequence[str], rank: int, alpha: float, keys: bool, last_blocks: int | None
) -> None:
    """Put LoRA into linear layers.

    Args:
        network: changed in place.
        targets: patterns of the layers' names.
        rank: of what is added to a weight.
        alpha: the scale is this by the rank.
        keys: whether layers of queries, keys and values at once adapt the keys too.
        last_blocks: of the image encoder, how many are adapted, the last ones; nothing is all.

    Raises:
        InputError: when a pattern matches no layer.
    """
    for name, layer in find_layers(network, targets, last_blocks).items():
        fused = name.endswith(".qkv")
        parts, adapted = (3, (0, 1, 2) if keys else (0, 2)) if fused else (1, (0,))
        network.set_submodule(name, LoRALinear(layer, rank, alpha, parts, adapted))


def read_lora(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings of LoRA, as its tensors tell them.

    Args:
        state: tensors of LoRA by name.

    Returns:
        ``targets``, ``rank`` and ``keys``; alpha is no tensor's shape, so the usual one is taken.
    """
    layers = sorted({name.rpartition(".")[0] for name in state})
    first = next(value for name, value in state.items() if name.endswith("lora_a"))
    keys = any(name.endswith(".qkv.lora_a") and len(value) == 3 for name, value in state.items())
    return {**DEFAULTS, "targets": layers, "rank": first.shape[1], "keys": keys}
