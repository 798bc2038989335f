# SPDX-License-Identifier: Apache-2.0
"""A network that segments what is as bright as the pixel under the click, so that a click elsewhere shows."""

import torch
from torch import Tensor, nn

PREDICTED_IOU = 0.875


class BrightnessNetwork(nn.Module):
    """It has the three methods that the inferer knows, and counts the images that it encodes.

    Of its three masks for each object only the one with the best predicted IoU is right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[tuple[int, ...]] = []

    def encode_image(self, image: Tensor) -> Tensor:
        self.encoded.append(tuple(image.shape))
        return image.mean(1)  # (1, 3, H, W) -> (1, H, W)

    def decode(
        self, embeddings: Tensor, points: Tensor, point_labels: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        grey = embeddings[0]
        assert grey.shape == size
        masks = [self.mask(grey, xy.int().tolist(), labels.tolist()) for xy, labels in zip(points[0], point_labels[0])]
        right = 10 * torch.stack(masks).float() - 5  # (Q, H, W)
        logits = torch.stack([-right, right, torch.full_like(right, 5)], dim=1)  # (Q, 3, H, W)
        iou = torch.tensor([0.5, PREDICTED_IOU, 0.25]).expand(len(masks), 3)
        return logits[None], iou[None]

    def mask(self, grey: Tensor, xy: list[list[int]], labels: list[int]) -> Tensor:
        """Give what is as bright as the first click, or the box, or nothing for background clicks alone."""
        if 1 in labels:
            x, y = xy[labels.index(1)]
            return (grey - grey[y, x]).abs() < 0.15
        mask = torch.zeros_like(grey, dtype=torch.bool)
        if 2 in labels:
            (left, top), (right, bottom) = xy[labels.index(2)], xy[labels.index(3)]
            mask[top : bottom + 1, left : right + 1] = True
        return mask

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        assert logits.shape[-2:] == size
        return logits
