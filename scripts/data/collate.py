# SPDX-License-Identifier: Apache-2.0
"""Batches of images that ask for different numbers of objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from monai.data import list_data_collate

PADDING = {"label": 0, "points": -1, "point_labels": -1, "previous": 0}  # an object without a prompt counts for nothing


def pad_objects(batch: Sequence[Mapping[str, Any]]) -> Any:
    """Collate items after padding the objects of each, axis 0 of masks and prompts, to the most in the batch.

    Args:
        batch: items with ``label`` (Q, H, W), ``points`` (Q, N, 2), ``point_labels`` (Q, N), ``previous`` (Q, H, W).

    Returns:
        One item of tensors (B, Q, ...); padding is empty masks, and points (-1, -1) with label -1.
    """
    most = max(len(item["label"]) for item in batch)
    padded = []
    for item in batch:
        missing = {
            key: F.pad(item[key], [0, 0] * (item[key].ndim - 1) + [0, most - len(item[key])], value=value)
            for key, value in PADDING.items()
            if key in item
        }
        padded.append({**item, **missing})
    return list_data_collate(padded)
