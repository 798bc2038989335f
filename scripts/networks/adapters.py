# SPDX-License-Identifier: Apache-2.0
"""What is added to a network and trained: the adapters of Medical-SAM-Adapter (Wu et al., 2023, section 3.2).

Written from the paper and from measurements; two things differ on purpose: the last layer starts at zero, so that a
fresh adapter leaves the network as it was (Houlsby et al., 2019; LoRA, 2021), and the bottleneck is a ratio of the
width.
"""

import logging
from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .efficient_sam import EfficientSAM

logger = logging.getLogger(__name__)


class Adapter(nn.Module):
    """A bottleneck: down, GELU, up, times a scale.

    Args:
        dim: width D of the tokens.
        ratio: bottleneck width as a share of D.
        scale: factor on the output.
    """

    def __init__(self, dim: int, ratio: float = 0.25, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(dim, max(1, int(dim * ratio)))
        self.up = nn.Linear(self.down.out_features, dim)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(x))) * self.scale


def add_adapters(
    network: EfficientSAM, ratio: float = 0.25, scale: float = 0.5, decoder: bool = False, train: Sequence[str] = ()
) -> EfficientSAM:
    """Add an adapter after the attention and one beside the MLP of every encoder block, and freeze the rest.

    Args:
        network: changed in place.
        ratio: bottleneck width as a share of the token width.
        scale: factor on the MLP adapter's output (the paper's s); the space adapter has none.
        decoder: also add three to each block of the mask decoder, after its cross-attentions and beside its MLP,
            without which it learns little about background clicks and masks, that it has never seen.
        train: further parts to train beside the adapters, as in :func:`train_only`.

    Returns:
        The same network. Until trained it computes exactly what it did before.

    Raises:
        ValueError: when the network has adapters already, or a part names no parameter.
    """
    if has_adapters(network):
        raise ValueError("the network has adapters already: add them to a plain EfficientSAM")
    train_only(network, train)  # refuses a part that does not exist before anything is added
    for block in network.image_encoder.blocks:
        weight = block.norm1.weight
        block.space_adapter = Adapter(len(weight), ratio).to(weight)
        block.mlp_adapter = Adapter(len(weight), ratio, scale).to(weight)
    for layer in network.mask_decoder.transformer.layers if decoder else []:
        weight = layer.norm1.weight
        layer.token_adapter = Adapter(len(weight), ratio).to(weight)
        layer.mlp_adapter = Adapter(len(weight), ratio, scale).to(weight)
        layer.image_adapter = Adapter(len(weight), ratio).to(weight)
    return network


def train_only(network: nn.Module, parts: Sequence[str]) -> nn.Module:
    """Let only some parts of a network take gradients.

    Args:
        network: changed in place.
        parts: substrings of parameter names, such as ``mask_decoder`` or ``_adapter.``, or one of them.

    Returns:
        The same network.

    Raises:
        ValueError: when a part names no parameter.
    """
    parts = [parts] if isinstance(parts, str) else parts
    for part in parts:
        if not any(part in name for name, _ in network.named_parameters()):
            raise ValueError(f"no parameter of the network has {part!r} in its name")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    return network


def is_adapter(name: str) -> bool:
    """Tell whether a parameter's name is an adapter's."""
    return "_adapter." in name


def has_adapters(network: nn.Module) -> bool:
    """Tell whether a network has adapters."""
    return any(is_adapter(name) for name, _ in network.named_parameters())


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """List the parameters that take gradients, for the optimiser, and log how many are trained, frozen and added.

    Args:
        network: a network whose parts were frozen by :func:`add_adapters` or :func:`train_only`, or a plain one.

    Returns:
        The parameters with ``requires_grad``.

    Raises:
        ValueError: when nothing is left to train.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("every parameter is frozen: nothing is left to train")
    count = sum(p.numel() for p in trained)
    total = sum(p.numel() for p in network.parameters())
    added = sum(p.numel() for name, p in network.named_parameters() if is_adapter(name))
    logger.info(
        f"parameters: {count:,} trained ({100 * count / total:.1f} %), {total - count:,} frozen, "
        f"{added:,} added by adapters"
    )
    return trained
