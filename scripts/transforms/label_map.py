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
        keys: of (Q, X, Y[, Z]) logits; becomes (1, X, Y[, Z]) uint8 (int32 above 255 objects): 0 is background, q + 1
            is object q, and where objects overlap the largest logit wins.
        class_count: the masks are those of so many classes for each object, outermost first; then c + 1 is class c,
            and where classes overlap the inner one wins.
    """

    def __init__(self, keys: KeysCollection, class_count: int | None = None) -> None:
        super().__init__(keys)
        self.class_count = class_count

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        for key in self.key_iterator(data):
            if len(data[key]) == 1:  # one pass over a volume, while a user waits
                labels = (data[key] > 0).to(torch.uint8)
            elif self.class_count is None:
                largest, index = data[key].max(dim=0, keepdim=True)
                labels = torch.where(largest > 0, index + 1, torch.zeros_like(index))
            else:
                of_class = data[key].unflatten(0, (-1, self.class_count)).amax(0) > 0  # (Q * classes) -> (classes)
                ranks = torch.arange(1, self.class_count + 1, device=of_class.device)
                labels = (of_class * ranks.reshape(-1, *[1] * (of_class.ndim - 1))).amax(0, keepdim=True)
            data[key] = labels.to(torch.uint8 if data[key].shape[0] < 256 else torch.int32)
        return data
