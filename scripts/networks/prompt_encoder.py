# SPDX-License-Identifier: Apache-2.0
"""The prompt encoder of EfficientSAM (Xiong et al., 2023), after SAM's (Kirillov et al., 2023).

Upstream has no embedding for a background click and takes no mask. Both are added here after SAM (appendix A, prompt
encoder), and start at zero: until they are trained, the outputs are upstream's.
"""

import math
from typing import Optional  # TorchScript reads Optional, not the bar of PEP 604, in signatures

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..prompts.form import align_points
from .image_encoder import LayerNorm2d

NUM_SLOTS = 6  # upstream pads or cuts every prompt to six points, and the padding takes part in attention


class PositionEmbeddingRandom(nn.Module):
    """Encode coordinates by random Fourier features (Tancik et al., 2020), row 0 of the matrix for x, row 1 for y."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, num_features))

    def forward(self, coords: Tensor) -> Tensor:
        """Encode (..., 2) coordinates (x, y) in 0..1 as (..., 2 * num_features)."""
        matrix = self.positional_encoding_gaussian_matrix
        coords = 2 * coords - 1
        # not a matrix product, which autocast would do in half precision and so move points by pixels
        phase = 2 * math.pi * (coords[..., :1] * matrix[0] + coords[..., 1:] * matrix[1])
        return torch.cat([phase.sin(), phase.cos()], dim=-1).to(matrix.dtype)

    def cells(self, grid: int) -> Tensor:
        """Encode the middles of a square's cells, row by row: (1, T*T, 2 * num_features) of T = ``grid``."""
        matrix = self.positional_encoding_gaussian_matrix
        centres = (torch.arange(grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.forward(torch.stack([x, y], dim=-1)).flatten(0, 1).unsqueeze(0)  # (T, T, C) -> (1, T*T, C)


def make_mask_downscaling(dim: int) -> nn.Sequential:
    """Make what brings a mask (B, 1, 4T, 4T) to the grid of the embedding, (B, dim, T, T), as in SAM.

    Args:
        dim: width of the embedding.
    """
    return nn.Sequential(
        nn.Conv2d(1, 4, kernel_size=2, stride=2),
        LayerNorm2d(4),
        nn.GELU(),
        nn.Conv2d(4, 16, kernel_size=2, stride=2),
        LayerNorm2d(16),
        nn.GELU(),
        nn.Conv2d(16, dim, kernel_size=1),
    )


class PromptEncoder(nn.Module):
    """Turn points and boxes into tokens, and the mask of the round before into a dense embedding.

    Args:
        image_size: side S of the network's image in pixels.
        grid: side T of the image embedding.
        dim: width of the tokens.
        align_points: put prompts where they were placed on images smaller than the network's, as
            :func:`scripts.prompts.form.align_points` does, and not where upstream's scaling leaves them.
    """

    CORRECTIONS = ("background_embeddings", "no_mask_embed", "mask_downscaling")  # what upstream has not

    def __init__(self, image_size: int, grid: int, dim: int = 256, align_points: bool = False) -> None:
        super().__init__()
        self.image_size = image_size
        self.align_points = align_points
        self.grid = grid
        self.num_slots = NUM_SLOTS
        self.logit_limit = 32.0  # of a mask prompt, as in SAM 2 (Ravi et al., 2024)
        self.click_radius = 1.5  # of the disc that a click draws on a mask prompt, in its cells
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.invalid_points = nn.Embedding(1, dim)
        self.point_embeddings = nn.Embedding(1, dim)
        self.bbox_top_left_embeddings = nn.Embedding(1, dim)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, dim)
        self.background_embeddings = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = make_mask_downscaling(dim)
        for parameter in self.last_of_corrections():
            nn.init.zeros_(parameter)

    def forward(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Encode the prompts of each object.

        Args:
            points: (B, N, 2), (x, y) in pixels of an image of ``size``; a negative coordinate means none.
            point_labels: (B, N) integers: -1 padding, 0 background, 1 foreground, 2 and 3 a box's corners.
            size: (H, W) of the image that the points lie on.

        Returns:
            (B, max(N, 6), dim) tokens; unused slots hold the padding token.
        """
        points = self.rescale(points, point_labels, size)
        missing = self.num_slots - points.shape[1]
        if missing > 0:
            points = F.pad(points, [0, 0, 0, missing], value=-1.0)
            point_labels = F.pad(point_labels, [0, missing], value=-1.0)
        tokens = self.pe_layer((points + 0.5) / self.image_size)  # (B, N, dim); half a pixel of the network's image
        label = point_labels.unsqueeze(-1)
        tokens = tokens + self.invalid_points.weight * (label == -1)
        tokens = tokens + self.background_embeddings.weight * (label == 0)
        tokens = tokens + self.point_embeddings.weight * ((label == 1) | (label == 4))
        tokens = tokens + self.bbox_top_left_embeddings.weight * (label == 2)
        return tokens + self.bbox_bottom_right_embeddings.weight * (label == 3)

    @torch.jit.unused
    def fill_slots(self, points: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Pad prompts as :meth:`forward` does, in a way that exporters follow for any number of points.

        Args:
            points: (B, N, 2), (x, y) in pixels of the network's image.
            point_labels: (B, N) integers.
        """
        batch, count = point_labels.shape
        slots = torch.sym_max(count, self.num_slots)
        points = torch.cat([points, points.new_full((1, 1, 1), -1.0).expand(batch, self.num_slots, 2)], 1)
        labels = torch.cat([point_labels, point_labels.new_full((1, 1), -1).expand(batch, self.num_slots)], 1)
        return points[:, :slots], labels[:, :slots]

    def rescale(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring (x, y) of an image of ``size`` to pixels of the network's image; negative coordinates become -1.

        Args:
            points: (B, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, N) integers.
            size: (H, W) of the image.
        """
        if self.align_points:
            points = align_points(points, point_labels, size, self.image_size)
        x = points[..., 0] * (self.image_size / size[1])
        y = points[..., 1] * (self.image_size / size[0])
        points = torch.stack([x, y], dim=-1)
        return torch.where(points >= 0, points, torch.full_like(points, -1.0))

    def embed_mask(
        self, mask_prompt: Optional[Tensor], points: Tensor, point_labels: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Encode the mask of the round before, to be added to the image embedding.

        The clicks are drawn on it as discs, as interactive segmentation has long done (Xu et al., 2016; Sofiiuk et al.,
        2021): a place is learned far sooner from a picture of it than from its code.

        Args:
            mask_prompt: (B, 1, 4T, 4T) logits, or None where there was no round before.
            points: (B, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, N) integers.
            size: (H, W) of the image that the points lie on.

        Returns:
            (B, dim, T, T), or (1, dim, 1, 1) for None.
        """
        if mask_prompt is None:
            return self.no_mask_embed.weight[:, :, None, None]
        limit = self.logit_limit
        drawn = self.draw_clicks(self.rescale(points, point_labels, size), point_labels, mask_prompt.shape[-1])
        logits = torch.where(drawn == 0, mask_prompt.clamp(-limit, limit), limit * drawn.sign())
        return self.mask_downscaling(logits.to(mask_prompt.dtype))

    def draw_clicks(self, points: Tensor, point_labels: Tensor, side: int) -> Tensor:
        """Count clicks near each cell of a (side, side) mask, background ones as -1: (B, 1, side, side).

        Args:
            points: (B, N, 2), (x, y) in pixels of the network's image.
            point_labels: (B, N) integers.
            side: of the mask.
        """
        cells = torch.arange(side, device=points.device) + 0.5
        middle = ((points + 0.5) * (side / self.image_size)).unsqueeze(3)  # (B, N, 2, 1)
        distance = (cells - middle) ** 2  # (B, N, 2, side)
        near = distance[:, :, 1].unsqueeze(3) + distance[:, :, 0].unsqueeze(2) <= self.click_radius**2
        sign = (point_labels == 1).int() - (point_labels == 0).int()  # (B, N)
        return (near * sign[:, :, None, None]).sum(1, keepdim=True)

    def dense_pe(self) -> Tensor:
        """Return the positional encoding of the embedding's cells, (1, T*T, dim), row by row."""
        return self.pe_layer.cells(self.grid)

    @torch.jit.unused
    def is_uncorrected(self) -> bool:
        """Return whether background clicks and masks change nothing yet."""
        return not any(bool(parameter.any()) for parameter in self.last_of_corrections())

    @torch.jit.unused
    def last_of_corrections(self) -> list[Tensor]:
        """List the parameters that are zero until background clicks and masks are trained."""
        embeddings = [self.background_embeddings.weight, self.no_mask_embed.weight]
        return [*embeddings, *self.mask_downscaling[-1].parameters()]
