# SPDX-License-Identifier: Apache-2.0
"""Where adapters go: a network names the modules that may be adapted, and a user chooses among them by patterns."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from ...errors import InputError

AFTER, BESIDE = "after", "beside"  # of a module: as of attentions, and as of MLPs
BLOCKS = "image_encoder.blocks"  # the transformer blocks of every network's image encoder
T = TypeVar("T")


def find_places(network: nn.Module, last_blocks: int | None = None) -> dict[str, str]:
    """Return where adapters may go in a network.

    Args:
        network: with ``adapter_places``: :data:`AFTER` or :data:`BESIDE` by a pattern of modules' names, in which ``*``
            stands for anything but a dot.
        last_blocks: of the image encoder's blocks, how many are adapted, the last ones; nothing is all.

    Returns:
        :data:`AFTER` or :data:`BESIDE` by a module's name, in the network's order.
    """
    patterns = {
        re.compile(re.escape(pattern).replace(r"\*", r"[^.]*")): where
        for pattern, where in getattr(network, "adapter_places", {}).items()
    }
    early = early_blocks(network, last_blocks)
    return {
        name: where
        for name, _ in network.named_modules()
        for pattern, where in patterns.items()
        if pattern.fullmatch(name) and not name.startswith(early)
    }


def early_blocks(network: nn.Module, last_blocks: int | None) -> tuple[str, ...]:
    """Name the image encoder's blocks but the last ones, each with a dot at its end.

    Args:
        network: with or without blocks.
        last_blocks: how many are left out; nothing leaves out all.
    """
    if last_blocks is None:
        return ()
    return tuple(f"{name}." for name in block_names(network)[:-last_blocks])


def block_names(network: nn.Module) -> list[str]:
    """Name the image encoder's blocks, in their order."""
    return [name for name, _ in network.named_modules() if name.rpartition(".")[0] == BLOCKS]


def find_layers(network: nn.Module, targets: Sequence[str], last_blocks: int | None = None) -> dict[str, nn.Linear]:
    """Return the linear layers of the places for adapters that patterns choose, by name.

    Args:
        network: of any kind; layers of adapters that are there already are left out.
        targets: patterns of the layers' names.
        last_blocks: of the image encoder's blocks, how many are adapted, the last ones; nothing is all.

    Raises:
        InputError: when a pattern matches no layer.
    """
    added = tuple(f"{name}." for name, module in network.named_modules() if hasattr(module, "adapter_parameters"))
    layers = {
        f"{place}.{name}": module
        for place in find_places(network, last_blocks)
        for name, module in network.get_submodule(place).named_modules()
        if type(module) is nn.Linear and not f"{place}.{name}".startswith(added)
    }
    return chosen(layers, targets)


def chosen(places: Mapping[str, T], targets: Sequence[str]) -> dict[str, T]:
    """Choose places by patterns of their names.

    Args:
        places: what stands at each name.
        targets: patterns such as ``"image_encoder.*"``, in which ``*`` stands for anything.

    Raises:
        InputError: when a pattern matches none.
    """
    for target in targets:
        if not any(fnmatchcase(name, target) for name in places):
            first = next(iter(places), "none")
            raise InputError(f"the network has no place {target!r} for adapters: it has {len(places)}, such as {first}")
    return {name: place for name, place in places.items() if any(fnmatchcase(name, target) for target in targets)}
