# SPDX-License-Identifier: Apache-2.0
"""SAM's prompt encoder (Kirillov et al., 2023, appendix A), which knows background clicks and masks."""

from typing import Optional  # TorchScript reads Optional, not the bar of PEP 604, in signatures

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...prompts.form import align_points
from ..prompt_encoder import PositionEmbeddingRandom, make_mask_downscaling


class PromptEncoder(nn.Module):
    """Turn points and boxes into tokens, and the mask of the round before into a dense embedding.

    Args:
        image_size: side S of the network's image in pixels.
        grid: side T of the image embedding.
        dim: width of the tokens.
        align_points: put prompts where they were placed on images smaller than the network's, as
            :func:`scripts.prompts.form.align_points` does, and not where upstream's scaling leaves them.
    """

    CORRECTIONS: tuple[str, ...] = ()  # nothing is added for background clicks and masks

    def __init__(self, image_size: int, grid: int, dim: int = 256, align_points: bool = False) -> None:
        super().__init__()
        self.image_size = image_size
        self.align_points = align_points
        self.grid = grid
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))  # by label
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = make_mask_downscaling(dim)
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Encode the prompts of each object.

        Args:
            points: (B, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, N) integers: -1 padding, 0 background, 1 foreground, 2 and 3 a box's corners.
            size: (H, W) of the image that the points lie on.

        Returns:
            (B, N + 1, dim) tokens: the last is of no point, and :meth:`ignored` says which count.
        """
        if self.align_points:
            points = align_points(points, point_labels, size, self.image_size)
        scale = torch.tensor([size[1], size[0]], device=points.device, dtype=points.dtype)
        tokens = self.pe_layer(points / scale + 0.5 / self.image_size)  # (B, N, dim), in the middle of a pixel
        label = F.pad(point_labels, [0, 1], value=-1.0).unsqueeze(-1)
        tokens = F.pad(tokens, [0, 0, 0, 1]) * (label != -1)
        tokens = tokens + self.not_a_point_embed.weight * (label == -1)
        for index, embedding in enumerate(self.point_embeddings):
            is_of_it = (label == index) | (label == 4) if index == 1 else label == index
            tokens = tokens + embedding.weight * is_of_it  # type: ignore[operator]
        return tokens

    def ignored(self, point_labels: Tensor) -> Tensor:
        """Return which tokens of :meth:`forward` count for nothing, so that a prompt's padding changes no answer.

        Upstream puts one token of no point beside the points of a prompt without a box, and none beside a box.

        Args:
            point_labels: (B, N) integers.

        Returns:
            (B, N + 1) bool.
        """
        has_box = (point_labels == 2).any(1, keepdim=True)
        return torch.cat([point_labels == -1, has_box], dim=1)

    def embed_mask(
        self, mask_prompt: Optional[Tensor], points: Tensor, point_labels: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Encode the mask of the round before, to be added to the image embedding.

        Args:
            mask_prompt: (B, 1, 4T, 4T) logits, or None where there was no round before.
            points: (B, N, 2), which change nothing here.
            point_labels: (B, N), likewise.
            size: (H, W) of the image.

        Returns:
            (B, dim, T, T), or (1, dim, 1, 1) for None.
        """
        if mask_prompt is None:
            return self.no_mask_embed.weight[:, :, None, None]
        return self.mask_downscaling(mask_prompt)

    def dense_pe(self) -> Tensor:
        """Return the positional encoding of the embedding's cells, (1, T*T, dim), row by row."""
        return self.pe_layer.cells(self.grid)

    @torch.jit.unused
    def fill_slots(self, points: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return prompts as they are: their number is free.

        Args:
            points: (B, N, 2).
            point_labels: (B, N) integers.
        """
        return points, point_labels

    @torch.jit.unused
    def is_uncorrected(self) -> bool:
        """Return False: nothing waits to be trained."""
        return False
