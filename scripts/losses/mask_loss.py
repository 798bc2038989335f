# SPDX-License-Identifier: Apache-2.0
"""The loss of a promptable segmenter: masks of an ambiguous and of a clear prompt, and the predicted IoU."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class PromptedMaskLoss(nn.Module):
    """Score all four masks of each object against the one target.

    The sum of three parts, averaged over objects (SAM, Kirillov et al., 2023, appendix A): the loss of mask 0, which
    answers clear prompts; the smallest loss among masks 1 to 3, so that each may keep a reading of an ambiguous
    prompt; and the mean squared error of the predicted IoU of all four. Objects with an empty target are padding and
    count for nothing.

    Args:
        mask_loss: a MONAI loss with ``sigmoid=True`` and ``reduction="none"``, such as DiceFocalLoss or DiceLoss.
        iou_weight: factor on the IoU part.
    """

    def __init__(self, mask_loss: nn.Module, iou_weight: float = 1.0) -> None:
        super().__init__()
        self.mask_loss = mask_loss
        self.iou_weight = iou_weight

    def forward(self, prediction: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            prediction: logits (B, Q, 4, h, w), which are resized to the target's grid, and predicted IoU (B, Q, 4), as
                the network gives them in training.
            target: (B, Q, H, W) binary masks.

        Returns:
            A scalar.

        Raises:
            ValueError: when target and prediction are of different images or objects.
        """
        logits, iou = prediction
        if target.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"prediction of {tuple(logits.shape[:2])} images and objects, target of {tuple(target.shape[:2])}"
            )
        present = target.flatten(2).bool().any(2)  # (B, Q)
        logits, iou, target = logits[present], iou[present], target[present]  # (N, 4, h, w), (N, 4), (N, H, W)
        if len(target) == 0:
            return (logits.sum() + iou.sum()) * 0.0

        logits = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)
        masks = target.unsqueeze(1).expand(logits.shape).to(logits.dtype)  # (N, 4, H, W)
        losses = self.mask_loss(logits.flatten(0, 1).unsqueeze(1), masks.flatten(0, 1).unsqueeze(1))
        losses = losses.flatten(1).mean(1).unflatten(0, (len(target), logits.shape[1]))  # (N, 4)
        iou_error = F.mse_loss(iou.float(), mask_iou(logits.detach(), masks))
        return losses[:, 0].mean() + losses[:, 1:].amin(1).mean() + self.iou_weight * iou_error


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Give the IoU of thresholded logits and masks, both (..., H, W), as (...)."""
    predicted, true = (logits > 0).flatten(-2), (masks > 0.5).flatten(-2)
    return (predicted & true).sum(-1) / (predicted | true).sum(-1).clamp(min=1)
