# SPDX-License-Identifier: Apache-2.0
"""The geometry of a network that stretches every image to its own square, as EfficientSAM (Xiong et al., 2023) does."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prompts.form import PADDING, align_points


class StretchedSquare:
    """Stretch images to a square of S x S pixels, and masks of M x M cells back; see :class:`Promptable` for each."""

    image_size: int
    mask_size: int

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (H, W) that an image of ``size`` has once it fills the square, by which points are scaled."""
        return size

    def frame_traced(self, size: Tensor) -> Tensor:
        """Return :meth:`frame` of a size that is a tensor (2)."""
        return size

    def resize(self, image: Tensor) -> Tensor:
        """Stretch (B, C, H, W) to (B, C, S, S), bilinearly without antialiasing, as upstream does."""
        if image.shape[-2] == self.image_size and image.shape[-1] == self.image_size:
            return image
        return F.interpolate(image, [self.image_size, self.image_size], mode="bilinear", align_corners=False)

    def to_network(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring points (..., 2) of an image of ``size`` (H, W) to pixels of the square, where they were placed.

        Args:
            points: (..., 2), (x, y) in pixels of an image of ``size``.
            point_labels: (...) integers: see :mod:`scripts.prompts.form`.
            size: (H, W) of the image.
        """
        size = self.frame(size)
        aligned = align_points(points, point_labels, size, self.image_size)
        scaled = aligned * (self.image_size / torch.tensor([size[1], size[0]], dtype=torch.float64)).to(aligned)
        return torch.where((point_labels == PADDING).unsqueeze(-1), torch.full_like(scaled, -1.0), scaled)

    def shrink(self, masks: Tensor) -> Tensor:
        """Bring masks (B, 1, H, W) in 0..1 to (B, 1, M, M), the share of each cell."""
        return F.interpolate(masks, [self.mask_size, self.mask_size], mode="area")

    @torch.jit.export
    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits (..., M, M) to (..., H, W) by bicubic interpolation, as upstream.

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (H, W) of the image.
        """
        flat = logits.reshape(-1, 1, logits.shape[-2], logits.shape[-1])
        flat = F.interpolate(flat, [size[0], size[1]], mode="bicubic", align_corners=False)
        return flat.reshape(logits.shape[:-2] + flat.shape[-2:])

    def upscale_traced(self, logits: Tensor, size: Tensor) -> Tensor:
        """Bring logits (B, C, M, M) to an image whose size is a tensor (2), bilinearly, as (B, C, H, W).

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (2) integers, height and width.
        """
        height, width = (int(n) for n in size.to(torch.int64).unbind())
        for side in (height, width):
            torch._check(side >= 1)
        rows, columns = (2 * (torch.arange(n) + 0.5) / n - 1 for n in (height, width))  # in -1..1 of the square
        grid = torch.stack([columns.expand(height, -1), rows.unsqueeze(1).expand(-1, width)], dim=-1).unsqueeze(0)
        return F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)
