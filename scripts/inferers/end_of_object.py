# SPDX-License-Identifier: Apache-2.0
"""Where an object that is followed from slice to slice ends."""

from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from torch import Tensor

from ..losses.mask_loss import mask_iou


@dataclass(frozen=True)
class EndOfObject:
    """Tell whether a mask is still of the object that was followed.

    Args:
        iou: least IoU of a mask with that of the slice before, where slices lie as close as pixels.
        area: least area, as a share of that of the slice before, and how much larger it may be, likewise.
        predicted_iou: least IoU that the network predicts of its mask.
    """

    iou: float = 0.6
    area: float = 0.3
    predicted_iou: float = 0.4

    def __call__(self, mask: Tensor, before: Tensor, predicted_iou: float, steps: float = 1.0) -> bool:
        """Return whether a mask is no longer the object's.

        Args:
            mask: (H, W) bool.
            before: (H, W) bool of the slice before.
            predicted_iou: of the mask.
            steps: how often what one step may take off is taken off.
        """
        area, area_before, least_area = int(mask.sum()), int(before.sum()), self.area**steps
        if not area or predicted_iou < self.predicted_iou or not least_area <= area / area_before <= 1 / least_area:
            return True
        return float(mask_iou(mask.float() - 0.5, before.float())) < self.iou**steps


def slice_distance(image: Tensor) -> float:
    """Return how far apart the slices of a volume (1, C, X, Y, Z) lie, in pixels; 1 where nothing says it.

    Closer slices count as 1 too, since masks of one object waver however close they are.
    """
    if not isinstance(image, MetaTensor):
        return 1.0
    x, y, z = torch.as_tensor(image.affine).reshape(-1, 4, 4)[0, :3, :3].norm(dim=0).tolist()
    return min(max(z / max((x * y) ** 0.5, 1e-6), 1.0), 4.0)  # a header may be wrong
