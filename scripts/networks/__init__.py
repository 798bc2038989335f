# SPDX-License-Identifier: Apache-2.0
"""EfficientSAM, its adapters, its weights, and the settings that a checkpoint keeps of all three."""

from .adapters import AdapterWeights, adapter_state_dict, add_adapters, disable_adapters, load_adapter, merge_adapters
from .checkpoint import build_network, find_weights, load, load_to_train, load_weights, read_settings
from .checkpointing import checkpoint_activations
from .efficient_sam import EfficientSAM
from .prefix import FrozenPrefix
from .settings import SAMPLE, Settings
from .swap import put_adapter
from .trained import parameter_groups, train_only, trainable_parameters

__all__ = [
    "SAMPLE",
    "AdapterWeights",
    "EfficientSAM",
    "FrozenPrefix",
    "Settings",
    "adapter_state_dict",
    "add_adapters",
    "build_network",
    "checkpoint_activations",
    "disable_adapters",
    "find_weights",
    "load",
    "load_adapter",
    "load_to_train",
    "load_weights",
    "merge_adapters",
    "parameter_groups",
    "put_adapter",
    "read_settings",
    "train_only",
    "trainable_parameters",
]
