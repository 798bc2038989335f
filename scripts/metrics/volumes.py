# SPDX-License-Identifier: Apache-2.0
"""How well an object of a volume is found: its surface in millimetres, and where it is taken to end."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import SurfaceDiceMetric
from torch import Tensor

from .interaction import MeanOverObjects


class SurfaceDiceInMillimetres(SurfaceDiceMetric):
    """MONAI's normalised surface Dice with the spacing that each target's affine says.

    Args:
        tolerance: in mm.
    """

    def __init__(self, tolerance: float) -> None:
        super().__init__([tolerance], include_background=True)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        """Score masks (1, 1, X, Y, Z): (1, 1)."""
        if not isinstance(y, MetaTensor):
            raise ValueError("surfaces in millimetres need a target with an affine")
        spacing = affine_to_spacing(y.affine.reshape(-1, 4, 4)[0]).tolist()
        masks = [each.as_tensor() if isinstance(each, MetaTensor) else each for each in (y_pred, y)]
        return super()._compute_tensor(*masks, spacing=spacing)


class SelectSeconds:
    """Pick the time that each object took, twice, since a metric is given a target too.

    Args:
        kind: of prompt, such as ``"click"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn a decollated batch into two equal lists of (1,), one for each object."""
        seconds = [each for item in output for each in item["pred"]["seconds"][self.kind].unsqueeze(1)]
        return seconds, seconds


class MeanSeconds(MeanOverObjects):
    """Average what :class:`SelectSeconds` picks."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Give the seconds (1, 1) as they are."""
        return y_pred


class SlicesBeyond(MeanOverObjects):
    """Count the slices on which one mask goes on and the other does not: how far a mask runs past an object's ends.

    Args:
        short: count those of the target that the prediction does not reach, instead: how far it stops short.
    """

    def __init__(self, short: bool = False) -> None:
        super().__init__()
        self.short = short

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Count for masks (1, 1, X, Y, Z): (1, 1)."""
        assert y is not None
        longer, other = (y, y_pred) if self.short else (y_pred, y)
        slices, others = (each.flatten(0, 3).any(0).nonzero().flatten() for each in (longer, other))
        if not len(others):
            return torch.tensor([[float(len(slices))]])
        beyond = (slices < others[0]) | (slices > others[-1])
        return beyond.sum().float().cpu().reshape(1, 1)
