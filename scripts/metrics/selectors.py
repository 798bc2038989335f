# SPDX-License-Identifier: Apache-2.0
"""Predictions and targets of one kind of prompt, object by object, for MONAI's metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from monai.handlers import IgniteMetricHandler
from monai.utils import evenly_divisible_all_gather
from torch import Tensor


class ObjectMetric(IgniteMetricHandler):
    """MONAI's metric handler for images some of which, or all, have nothing to score: that gives NaN.

    In validation, the item of everything on an image is asked for by other prompts than its objects are.
    """

    def update(self, output: Sequence[Any]) -> None:
        if len(output[0]):
            super().update(output)

    def compute(self) -> Any:
        if idist.get_world_size() > 1:
            self.gather()
        return math.nan if self.metric_fn.get_buffer() is None else super().compute()

    def gather(self) -> None:
        """Gather the values of all processes, in their order, one of which may have none: MONAI waits for it then."""
        metric = self.metric_fn
        own = torch.stack(metric._buffers[0]) if metric._buffers else torch.zeros(0, 0)  # (objects, values)
        width, bytes_each = (int(idist.all_reduce(n, "MAX")) for n in (own.shape[1], own.element_size()))
        if width:
            values = evenly_divisible_all_gather((own if len(own) else own.reshape(0, width)).double())
            metric._synced_tensors = [values.to(torch.float64 if bytes_each == 8 else torch.float32)]
            metric._synced = True


class SelectPromptKind:
    """Pick one kind of prompt from the output of an evaluator that runs :class:`scripts.engines.EvaluationSimulator`.

    Binary masks are cut to where either is, and a pixel around: overlaps and surfaces are the same there, and a large
    picture costs no more than its objects.

    Args:
        kind: of prompt, such as ``"click_1"``.
        probability: give the sigmoid of the logits, and the label as it is, instead of both as binary masks.
    """

    def __init__(self, kind: str, probability: bool = False) -> None:
        self.kind = kind
        self.probability = probability

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn a decollated batch into lists of (1, h, w) predictions and labels, one for each object."""
        predictions: list[Tensor] = []
        labels: list[Tensor] = []
        for item in output:
            logits = item["pred"]["masks"].get(self.kind)
            if logits is None:
                continue
            for one, label in zip(logits, item["label"]):  # (H, W)
                if self.probability:
                    pair = one.sigmoid(), label.float()
                else:
                    pair = one > 0, label > 0.5
                    window = _window(pair[0] | pair[1])
                    pair = pair[0][window].float(), pair[1][window].float()
                predictions.append(pair[0].unsqueeze(0))
                labels.append(pair[1].unsqueeze(0))
        return predictions, labels


def _window(mask: Tensor) -> tuple[slice, ...]:
    """Return what a mask (H, W) or (X, Y, Z) is on along each axis, and one more on each side."""
    axes = range(mask.ndim)
    found = [mask.any(tuple(other for other in axes if other != axis)).nonzero().flatten().tolist() for axis in axes]
    return tuple(slice(max(on[0] - 1, 0), on[-1] + 2) if on else slice(0, 1) for on in found)
