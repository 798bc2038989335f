# SPDX-License-Identifier: Apache-2.0
"""From the logits of objects to one label map."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class LabelMapd(MapTransform):
    """Merge the logits of Q objects into one label map.

    Args:
        keys: of (Q, X, Y[, Z]) logits; becomes (1, X, Y[, Z]) uint8 (uint16 above 255 objects): 0 is background, q + 1
            is object q, and where objects overlap the largest logit wins.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        for key in self.key_iterator(data):
            largest, index = data[key].max(dim=0, keepdim=True)
            labels = torch.where(largest > 0, index + 1, torch.zeros_like(index))
            data[key] = labels.to(torch.uint8 if data[key].shape[0] < 256 else torch.int32)
        return data
