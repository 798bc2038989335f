# SPDX-License-Identifier: Apache-2.0
"""Logits of several objects to one label map, with the probability of each kept beside it."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..prompts.class_layout import ClassLayout

PROBABILITY_KEY = "probability"


class MergeLogitsd(MapTransform):
    """Merge the logits of :class:`scripts.inferers.PromptedSliceInferer` as it merges them itself, and keep the
    probabilities under ``"probability"``, which need memory for each object.

    Args:
        keys: of logits (Q, X, Y[, Z]), or of classes (Q * classes, X, Y[, Z]), which become (1, X, Y[, Z]) ids.
        layout: of the classes, where each object has so many; the probability of a class is then the largest of all
            objects.
    """

    def __init__(self, keys: KeysCollection, layout: ClassLayout | None = None) -> None:
        super().__init__(keys)
        self.layout = layout

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        merged = dict(data)
        for key in self.key_iterator(merged):
            logits = data[key].as_tensor()
            if self.layout is not None:
                logits = logits.unflatten(0, (-1, len(self.layout))).amax(0)  # (Q * C, X, Y[, Z]) -> (C, X, Y[, Z])
                labels = torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
                for q, mask in enumerate(logits > 0):
                    self.layout.draw(q, mask, labels)
            else:
                best, owner = logits.max(0)
                labels = (owner + 1) * (best > 0)
            dtype = torch.uint8 if len(logits) < 256 else torch.int32
            merged[key] = MetaTensor(labels[None].to(dtype), meta=data[key].meta)
            merged[PROBABILITY_KEY] = MetaTensor(logits.sigmoid(), meta=data[key].meta)
        return merged
