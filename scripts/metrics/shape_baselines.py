# SPDX-License-Identifier: Apache-2.0
"""What is scored without any network, by drawing the obvious shape for a prompt: the floor below a prediction's score.

A box says nearly all of a round object, so a high Dice from a box means little before this is taken off.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..prompts.form import BOTTOM_RIGHT, INSIDE, TOP_LEFT


class PromptShapeBaseline:
    """Draw a shape for each prompt, where :class:`scripts.metrics.SelectPromptKind` gives the network's mask.

    A box gives the ellipse inscribed in it, a foreground click a disc around it.

    Args:
        kind: of first prompt, such as ``"box"``, ``"whole"`` or ``"click_1"``.
        diameter: of the disc in pixels, such as that of the mean object that was trained on; clicks need it.

    Raises:
        ValueError: when the diameter is not above 0.
    """

    def __init__(self, kind: str, diameter: float | None = None) -> None:
        if diameter is not None and diameter <= 0:
            raise ValueError(f"the diameter of a disc is above 0 pixels, got {diameter}")
        self.kind = kind
        self.diameter = diameter

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn a decollated batch into lists of (1, H, W) shapes and labels, one for each object."""
        shapes: list[Tensor] = []
        labels: list[Tensor] = []
        for item in output:
            points = item["pred"]["points"].get(self.kind)
            if points is not None:  # (Q, N, 2)
                wanted = (item["label"] > 0.5).float()  # (Q, H, W)
                for xy, point_labels in zip(points, item["pred"]["labels"][self.kind], strict=True):
                    shapes.append(self.draw(xy.to(wanted), point_labels.to(wanted.device), wanted.shape[1:])[None])
                labels += wanted.unsqueeze(1)
        return shapes, labels

    def draw(self, xy: Tensor, point_labels: Tensor, size: Sequence[int]) -> Tensor:
        """Draw the shape for points (N, 2) and their labels (N), (H, W); nothing but padding gives nothing.

        Args:
            xy: (N, 2) points of a prompt.
            point_labels: (N) of the points.
            size: (H, W) of the image.
        """
        corners = [xy[point_labels == label] for label in (TOP_LEFT, BOTTOM_RIGHT)]
        clicks = xy[torch.isin(point_labels, torch.tensor(INSIDE).to(point_labels))]
        if len(corners[0]):
            top_left, bottom_right = corners[0][0], corners[1][0]
            # the corners are the first and last pixel inside, so the box is one pixel longer than from one to the other
            return ellipse((top_left + bottom_right) / 2, bottom_right - top_left + 1, size)
        if not len(clicks):
            return torch.zeros(*size, device=xy.device)
        if self.diameter is None:
            raise ValueError(f"the floor of {self.kind} is a disc: give its diameter in pixels")
        return ellipse(clicks[0], torch.full_like(clicks[0], self.diameter), size)


def ellipse(centre: Tensor, axes: Tensor, size: Sequence[int]) -> Tensor:
    """Fill an upright ellipse.

    Args:
        centre: (2), (x, y) in pixels; a whole number is the middle of a pixel.
        axes: (2), whole width and height in pixels; less than one is drawn as one.
        size: (H, W) of the picture.

    Returns:
        (H, W) float32, 1 where the middle of a pixel lies inside.
    """
    y, x = (torch.arange(n, device=centre.device) for n in size)
    across, down = axes.clamp(min=1) / 2
    inside = ((x - centre[0]) / across) ** 2 + ((y[:, None] - centre[1]) / down) ** 2 <= 1
    return inside.float()
