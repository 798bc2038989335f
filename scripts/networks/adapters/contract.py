# SPDX-License-Identifier: Apache-2.0
"""What every kind of adapter keeps, so that nothing else need know which one is there.

After torchtune's ``AdapterModule`` (torchtune/modules/peft): a module that adapts names its own parameters. A kind is
one file beside this one and one line in :data:`KINDS`.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch.nn as nn
from torch import Tensor

from ...errors import InputError
from ..efficient_sam import EfficientSAM
from . import bottleneck

logger = logging.getLogger(__name__)


@runtime_checkable
class AdapterModule(Protocol):
    """A module whose output is added to a network's stream, and is zero until trained or while not ``enabled``."""

    enabled: bool

    def adapter_parameters(self) -> list[str]:
        """Name the parameters that adapt, as the module's own ``named_parameters`` does."""
        ...

    def is_fresh(self) -> bool:
        """Return whether it changes nothing yet."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: how it is added, its numbers, and how it is recognised in a file that does not name it."""

    add: Callable[..., None]
    defaults: Mapping[str, Any]
    read: Callable[[Mapping[str, Tensor]], dict[str, Any] | None]


KINDS = {"bottleneck": Kind(bottleneck.add_bottlenecks, bottleneck.DEFAULTS, bottleneck.read_bottlenecks)}


def adapter_settings(kind: str = "bottleneck", **numbers: Any) -> dict[str, Any]:
    """Write out a kind of adapter with all its numbers.

    Args:
        kind: one of :data:`KINDS`.
        numbers: those that differ from the kind's own.

    Returns:
        ``{"kind": ..., **numbers}``.

    Raises:
        InputError: when there is no such kind, or it has no such number.
    """
    if kind not in KINDS:
        raise InputError(f"the kind of adapters is one of {', '.join(KINDS)}, got {kind!r}")
    unknown = [name for name in numbers if name not in KINDS[kind].defaults]
    if unknown:
        known = ", ".join(KINDS[kind].defaults)
        raise InputError(f"adapters of kind {kind} have no {', '.join(unknown)}: there are {known}")
    return {"kind": kind, **KINDS[kind].defaults, **numbers}


def read_adapter_settings(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Recognise the adapters in a state dict that comes without settings; None where there are none."""
    for kind, made in KINDS.items():
        numbers = made.read(state)
        if numbers is not None:
            return {"kind": kind, **numbers}
    return None


def adapter_modules(network: nn.Module) -> dict[str, AdapterModule]:
    """Return the modules that adapt, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, AdapterModule)}


def adapter_parameters(network: nn.Module) -> list[str]:
    """Name the parameters that adapt, as the network's ``named_parameters`` does."""
    return [f"{name}.{own}" for name, module in adapter_modules(network).items() for own in module.adapter_parameters()]


def add_adapters(network: EfficientSAM, kind: str = "bottleneck", **numbers: Any) -> EfficientSAM:
    """Add adapters of one kind, and freeze all but them.

    Args:
        network: changed in place.
        kind: one of :data:`KINDS`.
        numbers: of that kind, such as ``ratio``.

    Returns:
        The same network. Until trained it computes exactly what it did before.

    Raises:
        ValueError: when the network has adapters already.
        InputError: when there is no such kind or number.
    """
    settings = adapter_settings(kind, **numbers)
    if adapter_modules(network):
        raise ValueError("the network has adapters already: add them to a plain EfficientSAM")
    KINDS[kind].add(network, **{name: value for name, value in settings.items() if name != "kind"})
    return train_only(network, ["adapters"])


def train_only(network: EfficientSAM, parts: Sequence[str] | None) -> EfficientSAM:
    """Let only some parts of a network take gradients.

    Args:
        network: changed in place.
        parts: modules and parameters by name or by the last words of it, such as ``mask_decoder`` or ``mask_tokens``,
            and ``adapters``; nothing trains every parameter.

    Returns:
        The same network.

    Raises:
        InputError: when the network has no such part.
    """
    if isinstance(parts, str):
        parts = [parts]
    trained: set[str] = set()
    for part in parts if parts is not None else [""]:
        found = adapter_parameters(network) if part == "adapters" else parameters_of(network, part)
        if not found:
            raise InputError(f"the network has no part {part!r} to train: name its modules, such as mask_decoder")
        trained.update(found)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    return network


def parameters_of(network: nn.Module, part: str) -> list[str]:
    """Name the parameters of the modules, or the parameter, that are called ``part`` or end in ``.part``."""
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
    """
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    trained = trainable_parameters(network)
    decay = [p for p in trained if p.ndim > 1 and id(p) not in embeddings]
    kept = {id(p) for p in decay}
    return [
        {"params": decay, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in kept], "weight_decay": 0.0},
    ]


@contextlib.contextmanager
def disable_adapters(network: nn.Module) -> Iterator[nn.Module]:
    """Take the adapters out while the context lasts: what is left computes bit for bit as if none were there."""
    modules = adapter_modules(network).values()
    before = [module.enabled for module in modules]
    try:
        for module in modules:
            module.enabled = False
        yield network
    finally:
        for module, enabled in zip(modules, before):
            module.enabled = enabled


def adapter_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Return what was trained: the tensors that take gradients, adapters and parts of the base alike."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in network.state_dict().items() if name in trained}


def base_hash(network: nn.Module, trained: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all tensors of a network but those that were trained."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class AdapterWeights:
    """What ``adapter.pth`` holds: only what was trained, and of which base.

    Args:
        network: whose trained tensors to save.
        settings: the :class:`scripts.networks.Settings` from which it is built again.
        base: path of the weights that training started from.
    """

    def __init__(self, network: nn.Module, settings: Any, base: str) -> None:
        self.network = network
        self.settings = settings
        self.base = Path(base).name
        self.hash: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return ``adapter`` (tensors), ``settings`` and ``base`` (name and hash)."""
        trained = adapter_state_dict(self.network)
        if self.hash is None:  # what is frozen stays
            self.hash = base_hash(self.network, trained)
        base = {"name": self.base, "sha256": self.hash}
        return {"adapter": trained, "settings": self.settings.state_dict(), "base": base}


def load_adapter(network: EfficientSAM, checkpoint: Mapping[str, Any], path: str | Path) -> EfficientSAM:
    """Put what was trained onto its base.

    Args:
        network: as the checkpoint's settings build it, with the weights of the base; changed in place.
        checkpoint: of an ``adapter.pth``.
        path: of the file, for errors.

    Returns:
        The same network.

    Raises:
        InputError: when the network is of other weights or of other settings.
    """
    tensors, base = checkpoint["adapter"], checkpoint["base"]
    own = network.state_dict()
    strangers = [name for name, value in tensors.items() if name not in own or own[name].shape != value.shape]
    if strangers:
        raise InputError(f"{path} does not fit the network: {strangers[0]} and {len(strangers) - 1} more have no place")
    if base_hash(network, tensors) != base["sha256"]:
        raise InputError(f"{path} was trained on other weights than these: it needs {base['name']}, unchanged")
    network.load_state_dict({**own, **tensors})
    return network
