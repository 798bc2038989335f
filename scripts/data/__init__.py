# SPDX-License-Identifier: Apache-2.0
"""Data sets: lists of the supported layouts, items that are objects, and the built-in sample."""

from .cached_views import CachedViews
from .collate import pad_objects
from .datalists import decathlon_datalist, find_datalist, folder_datalist, isic_datalist
from .inputs import InputDataset, InputLoader, find_inputs
from .listing import pick_split
from .mixture import mixture_datalist, mixture_weights
from .object_dataset import ObjectDataset
from .refuge import refuge_datalist
from .sample import make_sample
from .shard import SeededProxySampler, shard_range

__all__ = [
    "CachedViews",
    "InputDataset",
    "InputLoader",
    "ObjectDataset",
    "SeededProxySampler",
    "decathlon_datalist",
    "find_datalist",
    "find_inputs",
    "folder_datalist",
    "isic_datalist",
    "make_sample",
    "mixture_datalist",
    "mixture_weights",
    "pad_objects",
    "pick_split",
    "refuge_datalist",
    "shard_range",
]
