# SPDX-License-Identifier: Apache-2.0
"""EfficientSAM, its adapters and its weights."""

from .adapters import Adapter, add_adapters, train_only, trainable_parameters
from .efficient_sam import EfficientSAM
from .weights import find_weights, load_weights

__all__ = [
    "Adapter",
    "EfficientSAM",
    "add_adapters",
    "find_weights",
    "load_weights",
    "train_only",
    "trainable_parameters",
]
