# SPDX-License-Identifier: Apache-2.0
"""Which of the network's masks answers which class, where one prompt asks for several classes at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .form import FOREGROUND, SHARED, Prompt

MAX_CLASSES = 3  # mask 0 answers clear prompts; one of the others is left for each class


@dataclass(frozen=True)
class ClassLayout:
    """Lay classes out over the masks of the network and over the ids of a label map.

    Class q of the list is answered by mask 1 + q, and is id 1 + q of a label map, in which a later class lies on top.

    Args:
        classes: label ids of each class by name, outermost first, such as ``{"disc": [1, 2], "cup": [2]}``.

    Raises:
        InputError: when there is no class, or there are more than the network has masks.
    """

    classes: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes or {}) <= MAX_CLASSES:
            raise InputError(
                f"class_masks takes one to three classes, outermost first, got {list(self.classes or {})}: name them "
                "as in --classes \"{'cell': [1, 2], 'nucleus': [2]}\""
            )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """Return the names of ids 1, 2, ... of a label map."""
        return list(self.classes)

    @property
    def mask_index(self) -> list[int]:
        """Return which of the network's masks answers each class."""
        return list(range(1, len(self) + 1))

    def select(self, logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Select the mask of each class.

        Args:
            logits: (B, C, M, h, w) of C classes, the network's M masks each.
            iou: (B, C, M), what it predicts of them.

        Returns:
            (B, C, 1, h, w) and (B, C, 1).
        """
        q = torch.arange(len(self), device=logits.device)
        index = torch.tensor(self.mask_index, device=logits.device)
        return logits[:, q, index].unsqueeze(2), iou[:, q, index].unsqueeze(2)

    def prompts(self, prompt: Prompt) -> list[Prompt]:
        """Return the prompt of each class, from one that asks for all of them.

        A foreground click says that one of the classes is there. Only a class that holds all the others is known to be.
        """
        everything = {i for ids in self.classes.values() for i in ids}
        shared = np.where(prompt.labels == FOREGROUND, SHARED, prompt.labels)
        return [
            Prompt(prompt.points, prompt.labels if everything <= set(ids) else shared) for ids in self.classes.values()
        ]

    def split(self, labels: Tensor) -> list[Tensor]:
        """Return the mask of each class, of a label map of any shape."""
        return [labels > q for q in range(len(self))]

    def draw(self, q: int, mask: Tensor, labels: Tensor) -> None:
        """Draw the mask of class q into a label map of the same shape, under the classes that lie on top of it.

        Args:
            q: index of the class.
            mask: (H, W) bool.
            labels: (H, W) ids; changed in place.
        """
        labels[mask & (labels <= q)] = q + 1
