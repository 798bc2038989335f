# SPDX-License-Identifier: Apache-2.0
"""The parts of a network that upstream has not."""

from dataclasses import dataclass

from .adapters import adapter_group, adapter_modules
from .efficient_sam import EfficientSAM


@dataclass(frozen=True)
class AddedPart:
    """A part of the network that upstream has not, and that a checkpoint may lack as a whole: it starts at zero."""

    name: str
    tensors: list[str]
    is_fresh: bool


def added_parts(network: EfficientSAM) -> list[AddedPart]:
    """List the parts of a network that upstream has not."""
    groups: dict[str, list[str]] = {}
    trained = set()
    for key, module in adapter_modules(network).items():
        names = [f"{key}.{own}" for own in module.adapter_parameters()]
        group = adapter_group(names[0]) or key
        groups.setdefault(group, []).extend(names)
        if not module.is_fresh():
            trained.add(group)
    parts = [AddedPart(group, names, group not in trained) for group, names in groups.items()]
    encoder = network.prompt_encoder
    corrections = [
        f"prompt_encoder.{part}.{key}" for part in encoder.CORRECTIONS for key in getattr(encoder, part).state_dict()
    ]
    if corrections:
        parts.append(AddedPart("background clicks and mask feedback", corrections, encoder.is_uncorrected()))
    return parts
