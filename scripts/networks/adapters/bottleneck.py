# SPDX-License-Identifier: Apache-2.0
"""The adapters of Medical-SAM-Adapter (Wu et al., 2023, section 3.2): bottlenecks after attentions and beside MLPs.

Written from the paper and from measurements; two things differ on purpose: the last layer starts at zero, so that a
fresh adapter leaves the network as it was (Houlsby et al., 2019; LoRA, 2021), and the bottleneck is a ratio of the
width. The decoder's cross-attentions and MLPs have them too, without which it learns little about background clicks
and masks, that it has never seen.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .places import AFTER, chosen, find_places

DEFAULTS: dict[str, Any] = {"targets": ["*"], "ratio": 0.25, "scale": 0.5, "last_blocks": None}
NAME = "bottleneck"  # of the module that an adapted module holds


class Bottleneck(nn.Module):
    """Down, GELU, up, times a scale: what it returns is added to the stream.

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

    def merge(self) -> None:
        """Return None: what is not linear has no place in the weights of the base."""
        return None


# Hooks of modules that hold a bottleneck. A hook leaves the names of the module's own tensors as they are, and unlike a
# wrapper it is scripted with the module; TorchScript wants the inputs' types written out.
def after_one(self: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Add the bottleneck of what a module of one input returns.

    Args:
        inputs: of the module.
        output: of the module.
    """
    return output + self.bottleneck(output)


def after_three(self: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> Tensor:
    """Add the bottleneck of what a module of three inputs returns.

    Args:
        inputs: of the module.
        output: of the module.
    """
    return output + self.bottleneck(output)


def after_four(self: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> Tensor:
    """Add the bottleneck of what a module of four inputs returns.

    Args:
        inputs: of the module.
        output: of the module.
    """
    return output + self.bottleneck(output)


AFTERS: dict[int, Any] = {1: after_one, 3: after_three, 4: after_four}


def beside(self: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Add the bottleneck of what a module is given.

    Args:
        inputs: of the module.
        output: of the module.
    """
    return output + self.bottleneck(inputs[0])


def add_bottlenecks(
    network: nn.Module, targets: Sequence[str], ratio: float, scale: float, last_blocks: int | None
) -> None:
    """Add a bottleneck after each attention and beside each MLP.

    Args:
        network: changed in place.
        targets: patterns of the modules' names.
        ratio: bottleneck width as a share of the token width.
        scale: factor on the output of those beside MLPs (the paper's s); the others have none.
        last_blocks: of the image encoder, how many are adapted, the last ones; nothing is all.

    Raises:
        InputError: when a pattern matches no place.
    """
    for name, where in chosen(find_places(network, last_blocks), targets).items():
        module = network.get_submodule(name)
        last = [each for each in module.modules() if isinstance(each, nn.Linear)][-1]  # back to the stream's width
        own = Bottleneck(last.out_features, ratio, 1.0 if where == AFTER else scale)
        module.add_module(NAME, own.to(last.weight))
        after = AFTERS[len(inspect.signature(module.forward).parameters)]
        module.register_forward_hook(after if where == AFTER else beside)


def read_bottlenecks(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings of bottlenecks, as their tensors tell them.

    Args:
        state: tensors of bottlenecks by name.

    Returns:
        ``targets`` and ``ratio``; the scale is no tensor's shape, so the paper's is taken.
    """
    down = next(value for name, value in state.items() if name.endswith("down.weight"))
    halves = sorted({name.split(".")[0] for name in state})
    targets = ["*"] if "mask_decoder" in halves else [f"{half}.*" for half in halves]
    return {**DEFAULTS, "targets": targets, "ratio": down.shape[0] / down.shape[1]}
