# SPDX-License-Identifier: Apache-2.0
"""What is added to a network and trained: one file for each kind, and the contract that all keep."""

from .bottleneck import Bottleneck
from .contract import (
    KINDS,
    AdapterModule,
    AdapterWeights,
    adapter_modules,
    adapter_parameters,
    adapter_settings,
    adapter_state_dict,
    add_adapters,
    disable_adapters,
    load_adapter,
    parameter_groups,
    read_adapter_settings,
    train_only,
    trainable_parameters,
)

__all__ = [
    "KINDS",
    "AdapterModule",
    "AdapterWeights",
    "Bottleneck",
    "adapter_modules",
    "adapter_parameters",
    "adapter_settings",
    "adapter_state_dict",
    "add_adapters",
    "disable_adapters",
    "load_adapter",
    "parameter_groups",
    "read_adapter_settings",
    "train_only",
    "trainable_parameters",
]
