# SPDX-License-Identifier: Apache-2.0
"""What every kind of adapter keeps, so that nothing else need know which one is there.

After torchtune's ``AdapterModule`` (torchtune/modules/peft): a module that adapts names its own parameters. A kind is
one file beside this one and one line in :data:`KINDS`.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch.nn as nn
from torch import Tensor

from ...errors import InputError
from . import adalora, bottleneck, lora

Network = TypeVar("Network", bound=nn.Module)


@runtime_checkable
class AdapterModule(Protocol):
    """A module that adapts its network, and changes nothing until trained or while not ``enabled``."""

    enabled: bool

    def adapter_parameters(self) -> list[str]:
        """Name the parameters that adapt, as the module's own ``named_parameters`` does."""
        ...

    def is_fresh(self) -> bool:
        """Return whether it changes nothing yet."""
        ...

    def merge(self) -> nn.Module | None:
        """Return the module that does the same without an adapter, or None where there is none."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Args:
        add: puts it into a network, of which it is given ``targets`` and the numbers.
        defaults: ``targets`` and its numbers.
        tensors: what the names of its tensors hold, by which files are told apart that do not name the kind.
        read: returns its settings, as its tensors by name tell them.
    """

    add: Callable[..., None]
    defaults: Mapping[str, Any]
    tensors: re.Pattern[str]
    read: Callable[[Mapping[str, Tensor]], dict[str, Any]]


KIND = "bottleneck"  # unless another is named
WHOLE = ("rank", "target_rank", "last_blocks")  # numbers that count something
KINDS = {
    "bottleneck": Kind(
        bottleneck.add_bottlenecks, bottleneck.DEFAULTS, re.compile(r"\.bottleneck\."), bottleneck.read_bottlenecks
    ),
    "lora": Kind(lora.add_lora, lora.DEFAULTS, re.compile(r"\.lora_[ab]$"), lora.read_lora),
    "adalora": Kind(adalora.add_adalora, adalora.DEFAULTS, re.compile(r"\.adalora_[aeb]$"), adalora.read_adalora),
}


def adapter_settings(kind: str = KIND, **numbers: Any) -> dict[str, Any]:
    """Write out a kind of adapter with all its numbers.

    Args:
        kind: one of :data:`KINDS`.
        numbers: those that differ from the kind's own, and ``targets``: patterns of the names of what is adapted.

    Returns:
        ``{"kind": ..., "targets": [...], **numbers}``.

    Raises:
        InputError: when there is no such kind, or it has no such number.
    """
    if kind not in KINDS:
        raise InputError(f"the kind of adapters is one of {', '.join(KINDS)}, got {kind!r}")
    unknown = [name for name in numbers if name not in KINDS[kind].defaults]
    if unknown:
        known = ", ".join(KINDS[kind].defaults)
        raise InputError(f"adapters of kind {kind} have no {', '.join(unknown)}: there are {known}")
    targets = numbers.get("targets", KINDS[kind].defaults["targets"])
    if not isinstance(targets, (list, tuple)) or not targets or not all(isinstance(each, str) for each in targets):
        raise InputError(f"targets of adapters are a list of names, such as ['image_encoder.*'], got {targets!r:.80}")
    wrong = [
        name for name, value in numbers.items() if name != "targets" and isinstance(value, (str, list, tuple, dict))
    ]
    if wrong:
        raise InputError(f"{wrong[0]} of adapters is a number, got {numbers[wrong[0]]!r:.80}")
    for name in WHOLE:
        value = numbers.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name} of adapters is a whole number from 1 on, got {value!r:.80}")
    return {"kind": kind, **KINDS[kind].defaults, **numbers, "targets": list(targets)}


def read_adapter_settings(state: Mapping[str, Tensor]) -> list[dict[str, Any]] | None:
    """Recognise the adapters in a state dict that comes without settings.

    Args:
        state: tensors by name.

    Returns:
        A kind and its numbers each, or None where there are no adapters.
    """
    found = []
    for kind, made in KINDS.items():
        own = {name: value for name, value in state.items() if made.tensors.search(name)}
        if own:
            found.append({"kind": kind, **made.read(own)})
    return found or None


def adapter_group(name: str) -> str | None:
    """Return the words for the adapters that a tensor is of, which a file holds or lacks as a whole.

    Args:
        name: of the tensor, such as ``"image_encoder.blocks.0.attn.bottleneck.up.bias"``.
    """
    kind = next((kind for kind, made in KINDS.items() if made.tensors.search(name)), None)
    return kind and f"{kind} adapters of {name.split('.')[0]}"


def adapter_modules(network: nn.Module) -> dict[str, AdapterModule]:
    """Return the modules that adapt, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, AdapterModule)}


def adapter_parameters(network: nn.Module) -> list[str]:
    """Name the parameters that adapt, as the network's ``named_parameters`` does."""
    return [f"{name}.{own}" for name, module in adapter_modules(network).items() for own in module.adapter_parameters()]


def add_adapters(network: Network, adapters: Sequence[Mapping[str, Any]] = ({"kind": KIND},)) -> Network:
    """Add adapters, and freeze all but them.

    Args:
        network: changed in place.
        adapters: a kind each, one of :data:`KINDS`, with ``targets`` and numbers such as ``ratio``.

    Returns:
        The same network. Until trained it computes exactly what it did before.

    Raises:
        ValueError: when the network has adapters already.
        InputError: when there is no such kind or number, or nothing that ``targets`` match.
    """
    chosen = [adapter_settings(**each) for each in adapters]
    if adapter_modules(network):
        raise ValueError("the network has adapters already: add them to a plain one")
    for numbers in chosen:
        KINDS[numbers.pop("kind")].add(network, **numbers)
    return free_only(network, adapter_parameters(network))


def free_only(network: Network, names: Iterable[str]) -> Network:
    """Let only some parameters of a network take gradients.

    Args:
        network: changed in place.
        names: of the parameters.

    Returns:
        The same network.
    """
    free = set(names)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in free)
    return network


def merge_adapters(network: Network) -> Network:
    """Fold into the base what can be, so that it costs nothing.

    Args:
        network: changed in place; adapters that cannot be folded stay.

    Returns:
        The same network.
    """
    for name, module in adapter_modules(network).items():
        merged = module.merge()
        if merged is not None:
            network.set_submodule(name, merged)
    return network


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
