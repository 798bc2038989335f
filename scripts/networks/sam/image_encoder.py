# SPDX-License-Identifier: Apache-2.0
"""SAM's ViT image encoder (Kirillov et al., 2023, appendix A; Li et al., "Exploring Plain Vision Transformers", 2022).

Most blocks attend within windows, some over all tokens; both know how far tokens lie apart by decomposed relative
positions (Li et al., "MViTv2", 2022, equation 4).
"""

from collections.abc import Collection

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..image_encoder import PATCH_SIZE, FeedForward, make_neck

PRETRAINED_GRID = 64  # the positions are stored for 1024 pixels
WINDOW = 14  # side of a window in tokens


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each to a token that keeps its place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)  # (B, 3, S, S) -> (B, T, T, D)


class RelativeAttention(nn.Module):
    """Attend over all tokens of a square, with decomposed relative positions.

    Args:
        dim: width D of the tokens.
        num_heads: heads, D / heads wide each.
        side: of the square that the relative positions are stored for, in tokens; for others they are resized.
    """

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (B, T, T, D)."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T*T, D/heads) each
        places = q.unflatten(2, (height, width))
        rows = torch.einsum("bnhwc,hkc->bnhwk", places, between(self.rel_pos_h, height))
        columns = torch.einsum("bnhwc,wkc->bnhwk", places, between(self.rel_pos_w, width))
        bias = (rows.unsqueeze(5) + columns.unsqueeze(4)).flatten(4, 5).flatten(2, 3)  # (B, heads, T*T, T*T)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, dim))


def between(stored: Tensor, side: int) -> Tensor:
    """Return the embedding of the distance from each token of a row to each, (T, T, C).

    Args:
        stored: (L, C), of each distance from the lowest to the highest; it is resized where L is not 2 T - 1.
        side: T.
    """
    count = 2 * side - 1
    if stored.shape[0] != count:
        stored = F.interpolate(stored.t().unsqueeze(0), size=count, mode="linear")[0].t()
    places = torch.arange(side, device=stored.device)
    return stored[places.unsqueeze(1) - places.unsqueeze(0) + side - 1]


class Block(nn.Module):
    """A pre-norm transformer block that attends within windows, or over all tokens.

    Args:
        dim: width D of the tokens.
        num_heads: heads, D / heads wide each.
        window: side of a window in tokens; 0 attends over all.
        side: of the square that relative positions are stored for.
    """

    def __init__(self, dim: int, num_heads: int, window: int, side: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RelativeAttention(dim, num_heads, side)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.norm1(x)
        if self.window > 0:
            side, window = x.shape[1], self.window
            count = (side + window - 1) // window
            room = count * window - side  # filled up by zeros, which take part in attention as upstream
            attended = F.pad(attended, [0, 0, 0, room, 0, room])
            attended = attended.unflatten(2, (count, window)).unflatten(1, (count, window)).transpose(2, 3)
            attended = self.attn(attended.flatten(0, 2))  # (B * windows, window, window, D)
            attended = attended.unflatten(0, (-1, count, count)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
            attended = attended[:, :side, :side]
        else:
            attended = self.attn(attended)
        x = x + attended
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """Encode a normalised square image.

    Args:
        image_size: side S of the input in pixels, a multiple of 16; no parameter's shape depends on it.
        dim: token width D.
        depth: number of transformer blocks.
        num_heads: heads of every attention.
        global_blocks: which blocks attend over all tokens.
        out_channels: channels of the embedding.
    """

    def __init__(
        self,
        image_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        global_blocks: Collection[int],
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = image_size // PATCH_SIZE
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, PRETRAINED_GRID, PRETRAINED_GRID, dim))
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, 0, PRETRAINED_GRID) if i in global_blocks else Block(dim, num_heads, WINDOW, WINDOW)
            for i in range(depth)
        )
        self.neck = make_neck(dim, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Encode images.

        Args:
            image: (B, 3, S, S), normalised.

        Returns:
            (B, 256, T, T) embeddings with T = S / 16.

        Raises:
            ValueError: when the image is not S x S.
        """
        if image.shape[-2] != self.image_size or image.shape[-1] != self.image_size:
            raise ValueError(f"the encoder takes {self.image_size} x {self.image_size} pixels, got {image.shape}")
        x = self.embed(image)
        for block in self.blocks:
            x = block(x)
        return self.project(x)

    def embed(self, image: Tensor) -> Tensor:
        """Make tokens of images (B, 3, S, S), with their positions: what the blocks take, (B, T, T, D)."""
        return self.patch_embed(image) + self.resize_position_embedding()

    def project(self, x: Tensor) -> Tensor:
        """Make embeddings (B, 256, T, T) of what the blocks return, (B, T, T, D)."""
        return self.neck(x.permute(0, 3, 1, 2))

    def resize_position_embedding(self) -> Tensor:
        """Resize the stored position embedding to the grid of this image size, (1, T, T, D)."""
        if self.grid == self.pos_embed.shape[1]:
            return self.pos_embed
        pos = self.pos_embed.permute(0, 3, 1, 2)
        pos = F.interpolate(pos, size=(self.grid, self.grid), mode="bicubic", align_corners=False)
        return pos.permute(0, 2, 3, 1)
