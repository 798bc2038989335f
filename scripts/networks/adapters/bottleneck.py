# SPDX-License-Identifier: Apache-2.0
"""The adapters of Medical-SAM-Adapter (Wu et al., 2023, section 3.2): bottlenecks beside and after a block's layers.

Written from the paper and from measurements; two things differ on purpose: the last layer starts at zero, so that a
fresh adapter leaves the network as it was (Houlsby et al., 2019; LoRA, 2021), and the bottleneck is a ratio of the
width.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..efficient_sam import EfficientSAM

DEFAULTS = {"ratio": 0.25, "scale": 0.5, "decoder": False}


class Bottleneck(nn.Module):
    """Down, GELU, up, times a scale: what it gives is added to the stream.

    Args:
        dim: width D of the tokens.
        ratio: bottleneck width as a share of D.
        scale: factor on the output.
    """

    def __init__(self, dim: int, ratio: float = 0.25, scale: float = 1.0) -> None:
        super().__init__()
        self.enabled = True
        self.scale = scale
        self.down = nn.Linear(dim, max(1, int(dim * ratio)))
        self.up = nn.Linear(self.down.out_features, dim)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt (..., D) tokens."""
        if not self.enabled:
            return torch.zeros_like(x)
        return self.up(F.gelu(self.down(x))) * self.scale

    def adapter_parameters(self) -> list[str]:
        """Name the parameters that adapt: all of them."""
        return [name for name, _ in self.named_parameters()]

    def is_fresh(self) -> bool:
        """Return whether it adds nothing yet."""
        return not bool(self.up.weight.any()) and not bool(self.up.bias.any())


def add_bottlenecks(network: EfficientSAM, ratio: float = 0.25, scale: float = 0.5, decoder: bool = False) -> None:
    """Add a bottleneck after the attention and one beside the MLP of every encoder block.

    Args:
        network: changed in place.
        ratio: bottleneck width as a share of the token width.
        scale: factor on the output of those beside MLPs (the paper's s); the others have none.
        decoder: also add three to each block of the mask decoder, after its cross-attentions and beside its MLP,
            without which it learns little about background clicks and masks, that it has never seen.
    """
    for block in network.image_encoder.blocks:
        weight = block.get_parameter("norm1.weight")
        block.space_adapter = Bottleneck(len(weight), ratio).to(weight)
        block.mlp_adapter = Bottleneck(len(weight), ratio, scale).to(weight)
    for layer in network.mask_decoder.transformer.layers if decoder else []:
        weight = layer.get_parameter("norm1.weight")
        layer.token_adapter = Bottleneck(len(weight), ratio).to(weight)
        layer.mlp_adapter = Bottleneck(len(weight), ratio, scale).to(weight)
        layer.image_adapter = Bottleneck(len(weight), ratio).to(weight)


def read_bottlenecks(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the settings of the bottlenecks in a state dict that says nothing of them, or None where there are none.

    Args:
        state: tensors by name.

    Returns:
        ``ratio`` and ``decoder``; the scale is no tensor's shape, so the paper's is taken.
    """
    down = state.get("image_encoder.blocks.0.space_adapter.down.weight")
    if down is None:
        return None
    decoder = "mask_decoder.transformer.layers.0.token_adapter.down.weight" in state
    return {**DEFAULTS, "ratio": down.shape[0] / down.shape[1], "decoder": decoder}
