# SPDX-License-Identifier: Apache-2.0
"""The two-way transformer of EfficientSAM's mask decoder (Xiong et al., "EfficientSAM", 2023; yformer/EfficientSAM).

It differs from SAM's (Kirillov et al., "Segment Anything", 2023), so MONAI's and SAM's blocks cannot take its weights:
the first layer keeps the residual around its self-attention, and the second adds the prompt encoding to the residual
stream.
"""

from itertools import pairwise

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class MLP(nn.Module):
    """Apply ``depth`` hidden layers with GELU, then a linear output layer.

    Args:
        in_dim: width of the input.
        hidden_dim: width between.
        out_dim: width of the output.
        depth: hidden layers.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        dims = [in_dim] + [hidden_dim] * depth
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(i, o), nn.GELU()) for i, o in pairwise(dims))
        self.fc = nn.Linear(hidden_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.fc(x)


class Attention(nn.Module):
    """Attend from queries to keys, optionally at a smaller inner width.

    Args:
        dim: width of the tokens.
        num_heads: number of heads that share the inner width.
        downsample: factor by which the inner width is smaller than ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.reshape(b, n, self.num_heads, c // self.num_heads).transpose(
            1, 2
        )  # (B, N, C) -> (B, heads, N, C/heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from (B, N, dim) to (B, M, dim).

        Args:
            q: (B, N, dim) that ask.
            k: (B, M, dim) that are compared with.
            v: (B, M, dim) that are averaged.
        """
        q, k, v = self.split_heads(self.q_proj(q)), self.split_heads(self.k_proj(k)), self.split_heads(self.v_proj(v))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).flatten(2))  # (B, heads, N, C/heads) -> (B, N, dim)


class TwoWayAttentionBlock(nn.Module):
    """Let the prompt tokens look at themselves and at the image, and the image at the prompt tokens.

    Args:
        dim: width of the tokens.
        num_heads: heads of every attention.
        mlp_dim: hidden width of the token MLP.
        keep_query_pe: whether the prompt encoding is added to the residual stream before the self-attention
            (every layer but the first).
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, keep_query_pe: bool) -> None:
        super().__init__()
        self.keep_query_pe = keep_query_pe
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_dim, dim, depth=1)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample=2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens and the image after each has looked at the other.

        Args:
            queries: (B, N, dim) tokens.
            keys: (B, T*T, dim) image.
            query_pe: (B, N, dim), the prompt tokens as they came.
            key_pe: (1, T*T, dim), positions of the image.
        """
        if self.keep_query_pe:
            queries = queries + query_pe
        queries = self.norm1(queries + self.self_attn(queries, queries, queries))
        attended = self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries)
        keys = self.norm4(keys + attended)
        return queries, keys


class TwoWayTransformer(nn.Module):
    """Update prompt tokens and image embeddings by each other.

    Args:
        depth: number of two-way blocks.
        dim: width of the tokens and of the image embedding.
        num_heads: heads of every attention.
        mlp_dim: hidden width of the token MLPs.
    """

    def __init__(self, depth: int = 2, dim: int = 256, num_heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayAttentionBlock(dim, num_heads, mlp_dim, i > 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks and a last attention from tokens to image.

        Args:
            image: (B, T*T, dim) image embedding.
            image_pe: (1, T*T, dim) positional encoding of the embedding's cells.
            tokens: (B, N, dim) output and prompt tokens.

        Returns:
            The updated tokens (B, N, dim) and image (B, T*T, dim).
        """
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attended), keys
