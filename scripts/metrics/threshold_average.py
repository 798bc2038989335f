# SPDX-License-Identifier: Apache-2.0
"""The metric of Medical-SAM-Adapter's published tables: Dice or IoU averaged over five thresholds, at 256 pixels."""

import torch
import torch.nn.functional as F
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


class ThresholdAverage(CumulativeIterationMetric):
    """Average Dice or IoU over thresholds of the probability, for each case; for comparison with published tables only.

    It rewards saturated probabilities and is not the usual Dice, which is DiceMetric at 0.5. Dice is
    (2 I + 1e-4) / (P + G + 1e-4) and IoU is (I + 1e-6) / (U + 1e-6), so two empty masks score 1. Predictions and
    targets are resized to ``size`` by antialiased bilinear interpolation; a binary target is then cut at a half, and a
    soft one (the mean of several raters) at each threshold, as in the original.

    Args:
        measure: ``"dice"`` or ``"iou"``.
        size: side in pixels of the grid to score on.
    """

    def __init__(self, measure: str, size: int = 256) -> None:
        super().__init__()
        if measure not in ("dice", "iou"):
            raise ValueError(f"measure is dice or iou, got {measure!r}")
        self.measure = measure
        self.size = size

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Score probabilities (B, 1, H, W) against masks (B, 1, H, W) in 0..1: (B, 1)."""
        probability, target = self.resize(y_pred), self.resize(y)
        if bool(((y == 0) | (y == 1)).all()):
            target = (target > 0.5).float()
        scores = [self.score(probability > threshold, target > threshold) for threshold in THRESHOLDS]
        return torch.stack(scores).mean(0)

    def resize(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == (self.size, self.size):
            return x.float()
        return F.interpolate(x.float(), (self.size, self.size), mode="bilinear", antialias=True)

    def score(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the thresholds of one image.

        Args:
            predicted: (H, W) probabilities.
            target: (H, W) shares.
        """
        predicted, target = predicted.flatten(2).double(), target.flatten(2).double()
        overlap, total = (predicted * target).sum(2), predicted.sum(2) + target.sum(2)
        if self.measure == "dice":
            return (2 * overlap + 1e-4) / (total + 1e-4)
        return (overlap + 1e-6) / (total - overlap + 1e-6)

    def aggregate(self) -> Tensor:
        """Average over cases."""
        scores = self.get_buffer()
        if not isinstance(scores, Tensor):
            raise ValueError("no case was scored")
        return scores.mean()
