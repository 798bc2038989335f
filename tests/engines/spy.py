# SPDX-License-Identifier: Apache-2.0
"""A network that segments by grey level and notes all that it is asked, for tests of those who ask."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from scripts.networks.geometry import StretchedSquare
from scripts.networks.promptable import DecodesBest

PREDICTED_IOU = 0.875
SURE = 5.0  # its logits


@dataclass
class Asked:
    """One call of the decoder."""

    points: Tensor
    labels: Tensor
    size: tuple[int, int]
    mask_prompt: Tensor | None
    graph: bool  # whether gradients were kept


class SpyNetwork(StretchedSquare, DecodesBest, nn.Module):
    """A click on the object adds all pixels as bright as the one under it, one on background takes their region away.

    A box adds what is in it as bright as its middle. Of the four masks the third promises the most and is the answer.

    Args:
        image_size: side S of its image; its embedding is that image in grey, and its masks are as large.
        tolerance: how much greys may differ that are alike.
    """

    def __init__(self, image_size: int = 64, tolerance: float = 0.1) -> None:
        super().__init__()
        self.tolerance = tolerance
        self.image_size = self.mask_size = image_size
        self.num_slots = 6
        self.encoder = nn.Parameter(torch.tensor(1.0))
        self.decoder = nn.Parameter(torch.tensor(1.0))
        self.encoded: list[tuple[int, ...]] = []
        self.asked: list[Asked] = []

    def encode_image(self, image: Tensor) -> Tensor:
        self.encoded.append(tuple(image.shape))
        size = [self.image_size, self.image_size]
        return self.encoder * F.interpolate(image, size, mode="bilinear", align_corners=False).mean(1, keepdim=True)

    def decode_all(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        self.asked.append(Asked(points, point_labels, size, mask_prompt, torch.is_grad_enabled()))
        assert points.shape[:3] == point_labels.shape and len(points) == len(embeddings)
        assert mask_prompt is None or mask_prompt.shape == (*points.shape[:2], 1, self.image_size, self.image_size)
        scale = points.new_tensor([self.image_size / size[1], self.image_size / size[0]])
        answers = []
        for grey, objects, labels in zip(embeddings[:, 0].detach(), points * scale, point_labels):
            answers += [self.answer(grey, xy, label) for xy, label in zip(objects.long().tolist(), labels.tolist())]
        answers = torch.stack(answers).unflatten(0, points.shape[:2]).float()  # (B, Q, S, S)
        right = SURE * (2 * answers - 1) * self.decoder + 0 * embeddings
        logits = torch.stack([torch.full_like(right, SURE), -right, right, torch.full_like(right, -SURE)], dim=2)
        return logits, torch.tensor([0.5, 0.1, PREDICTED_IOU, 0.75]).expand(*points.shape[:2], 4) * self.decoder

    def answer(self, grey: Tensor, xy: list[list[int]], labels: list[int]) -> Tensor:
        mask = torch.zeros_like(grey, dtype=torch.bool)
        if 2 in labels:
            (left, top), (right, bottom) = xy[labels.index(2)], xy[labels.index(3)]
            inside = slice(top, bottom + 1), slice(left, right + 1)
            mask[inside] = (grey[inside] - grey[(top + bottom) // 2, (left + right) // 2]).abs() < self.tolerance
        for (x, y), label in zip(xy, labels):
            if label not in (0, 1) or not (0 <= x < self.image_size and 0 <= y < self.image_size):
                continue
            alike = (grey - grey[y, x]).abs() < self.tolerance
            if label == 1:
                mask |= alike
            else:
                regions = torch.from_numpy(ndimage.label(alike.numpy())[0])
                mask &= regions != regions[y, x]
        return mask


def picture(*patches: tuple[float, int, int, int, int], size: tuple[int, int] = (64, 64)) -> Tensor:
    """Draw patches of (grey, x0, y0, x1, y1), ends outside, on a black image (1, 3, H, W)."""
    image = torch.zeros(1, 3, *size)
    for grey, x0, y0, x1, y1 in patches:
        image[:, :, y0:y1, x0:x1] = grey
    return image
