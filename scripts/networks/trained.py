# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a network are trained."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch.nn as nn

from ..errors import InputError
from .adapters.contract import Network, adapter_parameters, free_only
from .adapters.places import block_names
from .image_encoder import LayerNorm2d

logger = logging.getLogger(__name__)

NORMS = (nn.LayerNorm, LayerNorm2d, nn.GroupNorm)
LAST_BLOCKS = re.compile(r"last_([1-9]\d*)_blocks")


def train_only(network: Network, parts: Sequence[str] | None) -> Network:
    """Let only some parts of a network take gradients.

    Args:
        network: changed in place.
        parts: modules and parameters by name or by the last words of it, such as ``mask_decoder`` or ``mask_tokens``;
            ``adapters``; ``last_4_blocks`` of the image encoder, or another number; ``norms`` and ``biases``, all that
            there are; and ``corrections``, what is added for background clicks and masks, where that is missing.
            Nothing trains every parameter.

    Returns:
        The same network.

    Raises:
        InputError: when the network has no such part.
    """
    if isinstance(parts, str):
        parts = [parts]
    trained: set[str] = set()
    for part in parts if parts is not None else [""]:
        found = find_part(network, part)
        if not found and part != "corrections":  # which upstream has not
            raise InputError(f"the network has no part {part!r} to train: name its modules, such as mask_decoder")
        trained.update(found)
    return free_only(network, trained)


def find_part(network: nn.Module, part: str) -> list[str]:
    """Name the parameters of a part of a network; see :func:`train_only`.

    Args:
        network: of any kind.
        part: a word for several modules, or the name of one.
    """
    last = LAST_BLOCKS.fullmatch(part)
    if last:
        return [name for block in block_names(network)[-int(last[1]) :] for name in parameters_of(network, block)]
    if part == "adapters":
        return adapter_parameters(network)
    if part == "norms":
        norms = [name for name, module in network.named_modules() if isinstance(module, NORMS)]
        return [name for norm in norms for name in parameters_of(network, norm)]
    if part == "biases":  # and not those of adapters, which are a part of their own
        adapted = set(adapter_parameters(network))
        names = [name for name, _ in network.named_parameters() if name not in adapted]
        return [name for name in names if name.rpartition(".")[2] == "bias"]
    if part == "corrections":
        encoder = network.get_submodule("prompt_encoder")
        return [name for each in getattr(encoder, "CORRECTIONS", ()) for name in parameters_of(network, each)]
    return parameters_of(network, part)


def parameters_of(network: nn.Module, part: str) -> list[str]:
    """Name the parameters of the modules, or the parameter, that are called ``part`` or end in ``.part``.

    Args:
        network: of any kind.
        part: name, or the last words of one.
    """
    names = [name for name, _ in (*network.named_modules(), *network.named_parameters())]
    roots = [name for name in names if name == part or name.endswith(f".{part}")]
    return [
        name
        for name, _ in network.named_parameters()
        if any(not root or name == root or name.startswith(f"{root}.") for root in roots)
    ]


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """List the parameters that take gradients, for the optimiser, and log how many are trained, frozen and added.

    Raises:
        ValueError: when nothing is left to train.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("every parameter is frozen: nothing is left to train")
    count = sum(p.numel() for p in trained)
    total = sum(p.numel() for p in network.parameters())
    added = sum(network.get_parameter(name).numel() for name in adapter_parameters(network))
    logger.info(
        f"parameters: {count:,} trained ({100 * count / total:.1f} %), {total - count:,} frozen, "
        f"{added:,} added by adapters"
    )
    return trained


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Part the parameters that take gradients for an optimiser: matrices decay, biases, norms and embeddings do not.

    As timm and nanoGPT do; decay would pull scales and positions towards a value that means nothing.

    Args:
        network: of any kind.
        weight_decay: of the matrices.
    """
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    trained = trainable_parameters(network)
    decay = [p for p in trained if p.ndim > 1 and id(p) not in embeddings]
    kept = {id(p) for p in decay}
    return [
        {"params": decay, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in kept], "weight_decay": 0.0},
    ]
