# SPDX-License-Identifier: Apache-2.0
"""The ViT image encoder of EfficientSAM (Xiong et al., 2023)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

PATCH_SIZE = 16
PRETRAINED_GRID = 14  # the position embedding is stored for 224 pixels


class LayerNorm2d(nn.Module):
    """Normalise the channels of each position of (B, C, H, W).

    Args:
        channels: C.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each to a token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)  # (B, 3, S, S) -> (B, D, T, T) -> (B, T*T, D)


class SelfAttention(nn.Module):
    """Attend over all tokens: no windows, no relative positions.

    Args:
        dim: width D of the tokens.
        num_heads: heads, D / heads wide each.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, heads, N, D/heads) each; unbinding is faster backward than indexing
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)


class FeedForward(nn.Module):
    """Widen each token fourfold, apply GELU, and come back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        dim: width D of the tokens.
        num_heads: heads, D / heads wide each.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def make_neck(dim: int, out_channels: int) -> nn.Sequential:
    """Make what brings tokens on their grid (B, D, T, T) to an embedding, in both networks.

    Args:
        dim: width D of the tokens.
        out_channels: channels of the embedding.
    """
    return nn.Sequential(
        nn.Conv2d(dim, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


def check_image_size(image_size: int) -> None:
    """Refuse a side of the network's square that is no positive multiple of a patch.

    Raises:
        InputError: then.
    """
    if not isinstance(image_size, int) or image_size < PATCH_SIZE or image_size % PATCH_SIZE:
        raise InputError(f"image_size is a positive multiple of {PATCH_SIZE}, got {image_size}")


class ImageEncoder(nn.Module):
    """Encode a normalised square image.

    Args:
        image_size: side S of the input in pixels, a multiple of 16; no parameter's shape depends on it.
        dim: token width D (192 for Ti, 384 for S).
        depth: number of transformer blocks.
        num_heads: heads of every attention.
        out_channels: channels of the embedding.
    """

    def __init__(self, image_size: int, dim: int, depth: int, num_heads: int, out_channels: int = 256) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = image_size // PATCH_SIZE
        self.pretrained_grid = PRETRAINED_GRID
        self.patch_embed = PatchEmbed(dim)
        # one unused class slot, as in upstream's checkpoints, then 14 x 14 positions row by row
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PRETRAINED_GRID**2, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
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
        """Make tokens of images (B, 3, S, S), with their positions: what the blocks take, (B, T*T, D)."""
        return self.patch_embed(image) + self.resize_position_embedding()

    def project(self, x: Tensor) -> Tensor:
        """Make embeddings (B, 256, T, T) of what the blocks return, (B, T*T, D)."""
        return self.neck(x.transpose(1, 2).unflatten(2, (self.grid, self.grid)))

    def resize_position_embedding(self) -> Tensor:
        """Resize the stored position embedding to the grid of this image size, (1, T*T, D)."""
        pos = self.pos_embed[:, 1:]
        if self.grid == self.pretrained_grid:
            return pos
        pos = pos.transpose(1, 2).unflatten(
            2, (self.pretrained_grid, self.pretrained_grid)
        )  # (1, 196, D) -> (1, D, 14, 14)
        pos = F.interpolate(pos, size=(self.grid, self.grid), mode="bicubic", align_corners=False)
        return pos.flatten(2).transpose(1, 2)
