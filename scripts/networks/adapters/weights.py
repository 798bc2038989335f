# SPDX-License-Identifier: Apache-2.0
"""What was trained, as a file of its own, and back onto its base."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ...errors import InputError
from .contract import Network


def adapter_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Return what was trained: the tensors that take gradients, adapters and parts of the base alike."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in network.state_dict().items() if name in trained}


def base_hash(network: nn.Module, trained: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all tensors of a network but those that were trained.

    Args:
        network: of any kind.
        trained: by the names of tensors.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class AdapterWeights:
    """What ``adapter.safetensors`` holds: only what was trained, of which base, and how good it is.

    Args:
        network: whose trained tensors to save.
        settings: the :class:`scripts.networks.Settings` from which it is built again.
        base: path of the weights that training started from.
        evaluator: whose metrics are noted, where there is one.
    """

    def __init__(self, network: nn.Module, settings: Any, base: str, evaluator: Any = None) -> None:
        self.network = network
        self.settings = settings
        self.base = Path(base).name
        self.evaluator = evaluator
        self.hash: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return ``adapter`` (tensors), ``settings``, ``base`` (name and hash) and ``metrics``."""
        trained = adapter_state_dict(self.network)
        if self.hash is None:  # what is frozen stays
            self.hash = base_hash(self.network, trained)
        base = {"name": self.base, "sha256": self.hash}
        metrics = {} if self.evaluator is None else dict(self.evaluator.state.metrics)
        return {"adapter": trained, "settings": self.settings.state_dict(), "base": base, "metrics": metrics}


def load_adapter(network: Network, tensors: Mapping[str, Tensor], base: Mapping[str, Any], path: str | Path) -> Network:
    """Put what was trained onto its base.

    Args:
        network: as the checkpoint's settings build it, with the weights of the base; changed in place.
        tensors: what was trained, by name.
        base: ``name`` and ``sha256`` of the base, as the file holds them.
        path: of the file, for errors.

    Returns:
        The same network.

    Raises:
        InputError: when the network is of other weights or of other settings, or the file holds what is no number.
    """
    own = network.state_dict()
    strangers = [name for name, value in tensors.items() if name not in own or own[name].shape != value.shape]
    if strangers:
        raise InputError(f"{path} does not fit the network: {strangers[0]} and {len(strangers) - 1} more have no place")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path} is broken: {name} holds NaN or infinity; give the adapter of an earlier epoch")
    if base_hash(network, tensors) != base["sha256"]:
        raise InputError(f"{path} was trained on other weights than these: it needs {base['name']}, unchanged")
    with torch.no_grad():
        for name, value in tensors.items():  # and nothing else: other networks may share the rest
            own[name].copy_(value)
    return network
