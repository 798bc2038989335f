# SPDX-License-Identifier: Apache-2.0
"""A network that segments what is as bright as the pixel under the click, so that a click elsewhere shows."""

import torch
from torch import Tensor, nn

from scripts.networks.geometry import StretchedSquare

PREDICTED_IOU = 0.875
IMAGE_SIZE = 64  # the side of its own grid, in which prompts come


class BrightnessNetwork(StretchedSquare, nn.Module):
    """It keeps the shapes of the images that it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = self.mask_size = IMAGE_SIZE
        self.num_slots = 6
        self.encoded: list[tuple[int, ...]] = []

    def encode_image(self, image: Tensor) -> Tensor:
        self.encoded.append(tuple(image.shape))
        return image.mean(1)  # (B, 3, H, W) -> (B, H, W): never resized, so that masks are sharp

    def decode_best(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
        mask_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        scale = torch.tensor([embeddings.shape[2] / size[1], embeddings.shape[1] / size[0]])
        pixels = (points * scale + 1e-4).int()  # the pixel that a point lies in
        masks = torch.stack(
            [
                torch.stack([self.mask(grey, xy.tolist(), labels.tolist()) for xy, labels in zip(*objects)])
                for grey, *objects in zip(embeddings, pixels, point_labels)
            ]
        )
        return 10 * masks.unsqueeze(2).float() - 5, torch.full(masks.shape[:2], PREDICTED_IOU)  # (B, Q, 1, H, W)

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
        return nn.functional.interpolate(logits[None], size, mode="nearest")[0] if logits.shape[-2:] != size else logits
