# SPDX-License-Identifier: Apache-2.0
"""What is added to a network and trained: one file for each kind, and the contract that all keep."""

from .bottleneck import Bottleneck
from .contract import (
    KIND,
    KINDS,
    AdapterModule,
    adapter_group,
    adapter_modules,
    adapter_parameters,
    adapter_settings,
    add_adapters,
    disable_adapters,
    merge_adapters,
    read_adapter_settings,
)
from .weights import AdapterWeights, adapter_state_dict, load_adapter

__all__ = [
    "KIND",
    "KINDS",
    "AdapterModule",
    "AdapterWeights",
    "Bottleneck",
    "adapter_group",
    "adapter_modules",
    "adapter_parameters",
    "adapter_settings",
    "adapter_state_dict",
    "add_adapters",
    "disable_adapters",
    "load_adapter",
    "merge_adapters",
    "read_adapter_settings",
]
