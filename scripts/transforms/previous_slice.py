# SPDX-License-Identifier: Apache-2.0
"""Ask for objects of a volume by their masks on the slice beside, as spreading does, also where they have ended."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import Randomizable, Transform
from scipy import ndimage

from ..prompts.carried import CHOSEN

AS_SPREADING = 0.6  # probability of the parts of the mask that prediction takes; else others
OTHER_PARTS = (("box", "point", "mask"), ("box", "mask"), ("box", "point"), ("box",), ("point",))
EXACT = 0.5  # probability of the true mask; else its border wavers, as that of a prediction does
ROUGHNESS = (0.02, 0.12)  # how far it wavers, as a share of the square root of the mask's area
SMOOTHNESS = 0.15  # of the wavering, likewise


class RandPreviousSliced(Randomizable, Transform):
    """Choose whether an item's objects are prompted by the slice before theirs, or after it.

    Sets ``data["before"]``, the label (1, H, W) of that slice, and leaves the objects that are on it. Items with
    ``ends``, whose objects are not on their own slice, always are.

    Args:
        prob: of doing so, where the label has neighbours.
        label_key: (3, H, W) ids as :class:`scripts.transforms.UprightSliced` leaves them, (1, H, W) out; others stay.
    """

    def __init__(self, prob: float = 0.0, label_key: str = "label") -> None:
        self.prob = prob
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        ends, label = data.pop("ends", False), data[self.label_key]
        if len(label) != 3 or label.is_floating_point():
            return data
        data[self.label_key] = label[:1]
        if not ends and self.R.rand() >= self.prob:
            return data
        for side in self.R.permutation([1, 2]):
            there = set(label[side].unique().tolist())
            objects = [ids for ids in data["objects"] if there & set(ids)]
            if objects:
                data["before"], data["objects"] = label[side : side + 1], objects
                break
        return data


def waver(mask: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Move the border of a mask (H, W) bool to and fro, smoothly; it may lose all.

    Args:
        mask: (H, W) bool.
        rng: source of random numbers.
    """
    if not mask.any():
        return mask
    side = np.sqrt(mask.sum())
    distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), max(SMOOTHNESS * side, 1))
    return distance + rng.uniform(*ROUGHNESS) * side * noise / noise.std() > 0


def draw_parts(rng: np.random.RandomState) -> tuple[str, ...]:
    """Draw which parts of a mask prompt, of :data:`scripts.prompts.carried.PARTS`."""
    return CHOSEN if rng.rand() < AS_SPREADING else OTHER_PARTS[rng.randint(len(OTHER_PARTS))]
