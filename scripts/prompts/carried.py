# SPDX-License-Identifier: Apache-2.0
"""The mask of one slice of a volume as the prompt of the next."""

from collections.abc import Collection

import numpy as np

from .corrections import correction_click
from .crops import mask_box
from .form import BOTTOM_RIGHT, TOP_LEFT, Prompt

PARTS = ("box", "point", "mask")  # the mask itself is no point: whoever prompts shows it to the network
CHOSEN = ("point", "mask")  # by the validation volumes of docs/benchmarks.md


def carried_prompt(mask: np.ndarray, parts: Collection[str] = CHOSEN, margin: float = 0.0) -> Prompt:
    """Return what a mask says of the same object on the next slice.

    Args:
        mask: (H, W) bool, not empty.
        parts: which of :data:`PARTS` prompt: the box of the mask, its innermost point.
        margin: how far the box is enlarged on each side, as a share of its side.
    """
    corners, click = mask_box(mask), correction_click(np.zeros_like(mask), mask)
    if corners is None or click is None:
        raise ValueError("an empty mask says nothing of where the object is on the next slice")
    points, labels = [np.zeros((0, 2), np.float32)], [np.zeros(0, np.int64)]
    if "box" in parts:
        box = np.reshape(np.array(corners, np.float32), (2, 2))
        room = margin * (box[1] - box[0] + 1)
        points.append((box + [-room, room]).clip(0, np.array(mask.shape[::-1]) - 1).astype(np.float32))
        labels.append(np.array([TOP_LEFT, BOTTOM_RIGHT]))
    if "point" in parts:
        points.append(click.points)
        labels.append(click.labels)
    return Prompt(np.concatenate(points), np.concatenate(labels))
