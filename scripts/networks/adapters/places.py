# SPDX-License-Identifier: Apache-2.0
"""Where adapters go: a network names the modules that may be adapted, and a user chooses among them by patterns."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from ...errors import InputError

AFTER, BESIDE = "after", "beside"  # of a module: as of attentions, and as of MLPs
T = TypeVar("T")


def find_places(network: nn.Module) -> dict[str, str]:
    """Return where adapters may go in a network.

    Args:
        network: with ``adapter_places``: :data:`AFTER` or :data:`BESIDE` by a pattern of modules' names, in which ``*``
            stands for anything but a dot.

    Returns:
        :data:`AFTER` or :data:`BESIDE` by a module's name, in the network's order.
    """
    patterns = {
        re.compile(re.escape(pattern).replace(r"\*", r"[^.]*")): where
        for pattern, where in getattr(network, "adapter_places", {}).items()
    }
    return {
        name: where
        for name, _ in network.named_modules()
        for pattern, where in patterns.items()
        if pattern.fullmatch(name)
    }


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
