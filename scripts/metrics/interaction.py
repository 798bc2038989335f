# SPDX-License-Identifier: Apache-2.0
"""What a user notices of a network: how many clicks it takes, whether it obeys them, and whether it knows its errors.

Number of clicks: "Deep Interactive Object Selection" (Xu et al., 2016) and "Reviving Iterative Training with Mask
Guidance" (Sofiiuk et al., 2021). All are averaged over objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from ..losses.mask_loss import mask_iou

Output = Sequence[Mapping[str, Any]]  # decollated, of an evaluator that runs scripts.engines.EvaluationSimulator
Pairs = tuple[list[Tensor], list[Tensor]]


class SelectClickTrace:
    """Pick the true IoU after each click; a metric that needs no target is given the same twice.

    Args:
        key: ``"trace"``, ``"box_trace"`` of clicks after a box, or ``"flips"``: what became of each click, 1 a
            background click that was obeyed, 0 one that was not, -1 any other.
    """

    def __init__(self, key: str = "trace") -> None:
        self.key = key

    def __call__(self, output: Output) -> Pairs:
        """Turn a decollated batch into two equal lists of (clicks,), one for each object that was clicked at."""
        rows = [row for item in output for row in item["pred"].get(self.key, ())]
        return rows, rows


class SelectPredictedIoU:
    """Pick what the network says of its masks, and what is true of them.

    Args:
        kind: of prompt, such as ``"click_1"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, output: Output) -> Pairs:
        """Turn a decollated batch into lists of (1,) predicted and true IoU, one for each object."""
        predicted: list[Tensor] = []
        true: list[Tensor] = []
        for item in output:
            logits = item["pred"]["masks"].get(self.kind)
            if logits is not None:  # (Q, H, W)
                predicted += item["pred"]["iou"][self.kind].unsqueeze(1)
                true += mask_iou(logits, item["label"]).unsqueeze(1)
        return predicted, true


class MeanOverObjects(CumulativeIterationMetric):
    """Average one value (B, 1) for each object; NaN says that an object has none."""

    def aggregate(self) -> Tensor:
        """Average over the objects that have a value; NaN where none has (MONAI's reduction would say 0)."""
        values = self.get_buffer()
        if not isinstance(values, Tensor):
            raise ValueError("no object was scored")
        return values.nanmean()


class NumberOfClicks(MeanOverObjects):
    """Count the clicks until the mask is good for the first time, or all of them where it never is (NoC).

    Args:
        iou: the IoU at which a mask is good, in 0..1.
    """

    def __init__(self, iou: float = 0.9) -> None:
        super().__init__()
        self.iou = check_iou(iou)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Count the clicks of traces (B, clicks): (B, 1)."""
        good = y_pred >= self.iou
        first = good.int().argmax(1) + 1  # the first of equals
        return torch.where(good.any(1), first, y_pred.shape[1]).float().unsqueeze(1)


class ClickFailures(MeanOverObjects):
    """Give the share of objects whose mask is not good after any of the clicks.

    Args:
        iou: the IoU at which a mask is good, in 0..1.
    """

    def __init__(self, iou: float = 0.9) -> None:
        super().__init__()
        self.iou = check_iou(iou)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Return of traces (B, clicks) whether they fail: (B, 1) of 1 and 0."""
        return (y_pred < self.iou).all(1, keepdim=True).float()


class ClickCurveArea(MeanOverObjects):
    """Give the area under the curve of Dice over clicks by the trapezoid rule, one for a click: of five, 4 at most.

    As in the challenge on interactive segmentation of CVPR 2025, where the clicks follow a box that is not counted.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Integrate traces of IoU (B, clicks): (B, 1)."""
        return torch.trapezoid(2 * y_pred / (1 + y_pred), dim=1).unsqueeze(1)


class BackgroundFlips(CumulativeIterationMetric):
    """Give the share of background clicks that made their own pixel background, over all clicks of all objects."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Count obeyed and all background clicks of flips (B, clicks): (B, 2)."""
        return torch.stack([(y_pred > 0).sum(1), (y_pred >= 0).sum(1)], dim=1).float()

    def aggregate(self) -> Tensor:
        """Divide the sums; NaN where there was no background click."""
        counts = self.get_buffer()
        if not isinstance(counts, Tensor):
            raise ValueError("no object was scored")
        obeyed, clicks = counts.sum(0)
        return obeyed / clicks


def check_iou(iou: float) -> float:
    """Refuse an IoU that no mask, or any mask, reaches."""
    if not 0 < iou <= 1:
        raise ValueError(f"iou is above 0 and at most 1, got {iou}")
    return iou
