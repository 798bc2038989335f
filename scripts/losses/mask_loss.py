# SPDX-License-Identifier: Apache-2.0
"""The loss of a promptable segmenter: masks of an ambiguous and of a clear prompt, and the predicted IoU."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..prompts.class_layout import ClassLayout
from ..prompts.form import PADDING, SHARED
from .pieces import sum_in_pieces

PIECE = 2**19  # pixels of masks that are scored together


class PromptedMaskLoss(nn.Module):
    """Score all four masks of each object against the one target.

    The sum of three parts, averaged over objects (SAM, Kirillov et al., 2023, appendix A): the loss of mask 0, which
    answers clear prompts; the smallest loss among masks 1 to 3, so that each may keep a reading of an ambiguous
    prompt; and the mean squared error of the predicted IoU of all four. An object with an empty target and no prompt is
    padding and counts for nothing; one that was prompted is not there, and no mask of it has a good IoU.

    Args:
        mask_loss: a MONAI loss with ``sigmoid=True`` and ``reduction="none"``, such as DiceFocalLoss or DiceLoss. It
            scores some objects at a time, and gradients are found with the score, so that it needs little memory.
        iou_weight: factor on the IoU part.
        click_weight: factor on the cross-entropy of each mask at the clicks, so that a click changes what it points at.
        layout: of the classes, where the objects are classes that are each answered by one mask alone. Then an image
            where nothing is labelled is padding, and a class that is not there shall have an empty mask.
        grid: size of the grid that is scored as a share of the target's; a half costs a quarter.
    """

    def __init__(
        self,
        mask_loss: nn.Module,
        iou_weight: float = 1.0,
        click_weight: float = 1.0,
        layout: ClassLayout | None = None,
        grid: float = 1.0,
    ) -> None:
        super().__init__()
        self.mask_loss = mask_loss
        self.iou_weight = iou_weight
        self.click_weight = click_weight
        self.layout = layout
        self.grid = grid

    def forward(self, prediction: tuple[Tensor, ...] | list[tuple[Tensor, ...]], target: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            prediction: logits (B, Q, 4, h, w), which are resized to the target's grid, and predicted IoU (B, Q, 4), as
                the network gives them in training, and optionally points (B, Q, N, 2) in 0..1 of the image and their
                labels (B, Q, N); or a list of these, one for each round, whose losses are averaged.
            target: (B, Q, H, W) masks, binary or soft in 0..1.

        Returns:
            A scalar.

        Raises:
            ValueError: when target and prediction are of different images or objects.
        """
        if isinstance(prediction, list):
            return torch.stack([self(one, target) for one in prediction]).mean()
        logits, iou, *clicks = prediction
        if target.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"prediction of {tuple(logits.shape[:2])} images and objects, target of {tuple(target.shape[:2])}"
            )
        exists = present = (target > 0.5).flatten(2).any(2)  # (B, Q)
        if self.layout is None and clicks:
            present = present | (clicks[1] != PADDING).any(2)
        if self.layout is not None:
            present = present.any(1, keepdim=True).expand_as(present)
            logits, iou = self.layout.select(logits, iou)
        logits, iou, target = logits[present], iou[present], target[present]  # (N, 4, h, w), (N, 4), (N, H, W)
        exists = exists[present] | (self.layout is not None)
        if len(target) == 0:
            return (logits.sum() + iou.sum()) * 0.0
        given = [target, exists, *(each[present] for each in clicks)]
        pixels = logits.shape[1] * target[0].numel() * self.grid**2
        return sum_in_pieces(self.score_objects, [logits, iou], given, max(1, int(PIECE / pixels))) / len(target)

    def score_objects(self, logits: Tensor, iou: Tensor, target: Tensor, exists: Tensor, *clicks: Tensor) -> Tensor:
        """Compute the sum of the losses of some objects.

        Args:
            logits: (N, M, h, w) of all four masks, or of the one of a class.
            iou: (N, M) predicted.
            target: (N, H, W) masks.
            exists: (N) bool, whether the object is there.
            clicks: points (N, P, 2) in 0..1 of the image and their labels (N, P), or nothing.

        Returns:
            A scalar.
        """
        if self.grid != 1:  # the mean of a soft target's pixels
            target = F.interpolate(target[:, None].float(), scale_factor=self.grid, mode="area")[:, 0]
        logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
        masks = target.unsqueeze(1).expand(logits.shape).to(logits.dtype)  # (N, 4 or 1, H, W)
        losses = self.mask_loss(logits.flatten(0, 1).unsqueeze(1), masks.flatten(0, 1).unsqueeze(1))
        losses = losses.flatten(1).mean(1).unflatten(0, (len(target), logits.shape[1]))  # (N, 4 or 1)
        if clicks:
            points, point_labels = clicks
            losses = losses + self.click_weight * click_loss(logits, points, point_labels, masks[:, 0])
        # an empty mask of what is not there would be perfect, and the next pixel of it worthless
        iou_error = (iou - mask_iou(logits.detach(), masks) * exists.unsqueeze(1)).square().mean(1)
        best = losses[:, 0] if self.layout is not None else losses[:, 0] + losses[:, 1:].amin(1)
        return (best + self.iou_weight * iou_error).sum()


def click_loss(logits: Tensor, points: Tensor, point_labels: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of each mask at its object's clicks.

    Args:
        logits: (N, M, H, W).
        points: (N, P, 2), (x, y) in 0..1 of the image.
        point_labels: (N, P): 1 foreground, 0 background, 4 a click that is shared by several classes, of which the
            target says whether they are there; others are no clicks.
        target: (N, H, W) masks, binary or soft in 0..1, in the type of the logits.

    Returns:
        (N, M); 0 for an object without a click.
    """
    grid = (2 * points - 1).unsqueeze(2).to(logits)
    at_points = F.grid_sample(logits, grid, align_corners=False).squeeze(3)  # (N, M, P)
    is_there = F.grid_sample(target.unsqueeze(1), grid, mode="nearest", align_corners=False)[:, 0, :, 0]
    is_shared = point_labels == SHARED
    is_click = ((point_labels == 0) | (point_labels == 1) | is_shared).unsqueeze(1).to(logits)  # (N, 1, P)
    wanted = torch.where(is_shared, is_there, (point_labels == 1).to(logits)).unsqueeze(1).expand_as(at_points)
    losses = F.binary_cross_entropy_with_logits(at_points, wanted, reduction="none") * is_click
    return losses.sum(2) / is_click.sum(2).clamp(min=1)


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the IoU of thresholded logits and masks, both (..., H, W), as (...); 1 where both are empty.

    Args:
        logits: (..., H, W).
        masks: (..., H, W) of 0 and 1.
    """
    predicted, true = (logits > 0).flatten(-2), (masks > 0.5).flatten(-2)
    union = (predicted | true).sum(-1)
    return torch.where(union > 0, (predicted & true).sum(-1) / union.clamp(min=1), 1.0)
