# SPDX-License-Identifier: Apache-2.0
"""SAM's mask decoder (Kirillov et al., 2023, appendix A)."""

from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..image_encoder import LayerNorm2d
from ..mask_decoder import NUM_MASKS
from ..two_way_transformer import Attention


class MLP(nn.Module):
    """Linear layers with ReLU between.

    Args:
        dims: widths, from the input's to the output's.
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == last else F.relu(layer(x))
        return x


class FeedForward(nn.Module):
    """Widen each token, apply ReLU, and come back.

    Args:
        dim: width of the tokens.
        hidden_dim: width between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class BiasedAttention(Attention):
    """Attend with something added to what queries and keys have in common."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        """Attend from (B, N, dim) to (B, M, dim).

        Args:
            q: (B, N, dim) that ask.
            k: (B, M, dim) that are compared with.
            v: (B, M, dim) that are averaged.
            bias: (B, 1, 1, M), added before the softmax: minus infinity leaves a key out.
        """
        q, k, v = self.split_heads(self.q_proj(q)), self.split_heads(self.k_proj(k)), self.split_heads(self.v_proj(v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class TwoWayAttentionBlock(nn.Module):
    """Let the prompt tokens look at themselves and at the image, and the image at the prompt tokens.

    Args:
        dim: width of the tokens.
        num_heads: heads of every attention.
        mlp_dim: hidden width of the token MLP.
        is_first: whether the tokens have no residual yet, which are the prompt encoding then.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = BiasedAttention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = BiasedAttention(dim, num_heads, downsample=2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens and the image after each has looked at the other.

        Args:
            queries: (B, N, dim) tokens.
            keys: (B, T*T, dim) image.
            query_pe: (B, N, dim), the prompt tokens as they came.
            key_pe: (1, T*T, dim), positions of the image.
            bias: (B, 1, 1, N), minus infinity for tokens that count for nothing.
        """
        if self.is_first:
            queries = self.self_attn(queries, queries, queries, bias)
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(placed, placed, queries, bias)
        queries = self.norm1(queries)
        attended = self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries, bias)
        return queries, self.norm4(keys + attended)


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
        self.layers = nn.ModuleList(TwoWayAttentionBlock(dim, num_heads, mlp_dim, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks and a last attention from tokens to image.

        Args:
            image: (B, T*T, dim) image embedding.
            image_pe: (1, T*T, dim) positional encoding of the embedding's cells.
            tokens: (B, N, dim) output and prompt tokens.
            bias: (B, 1, 1, N), minus infinity for tokens that count for nothing.

        Returns:
            The updated tokens (B, N, dim) and image (B, T*T, dim).
        """
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe, bias)
        attended = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attended), keys


class MaskDecoder(nn.Module):
    """Predict four masks and their IoU from an image embedding and prompt tokens.

    Args:
        dim: width of tokens and embedding.
        iou_hidden_dim: hidden width of the head that predicts each mask's IoU.
    """

    def __init__(self, dim: int = 256, iou_hidden_dim: int = 256) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim=dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP(dim, iou_hidden_dim, iou_hidden_dim, NUM_MASKS)

    def forward(
        self, embeddings: Tensor, dense_pe: Tensor, prompt_tokens: Tensor, ignored: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode all four masks.

        Args:
            embeddings: (B, dim, T, T), one for each prompt.
            dense_pe: (1, T*T, dim).
            prompt_tokens: (B, N, dim).
            ignored: (B, N) bool, which of them count for nothing.

        Returns:
            Logits (B, 4, 4T, 4T) and predicted IoU (B, 4), mask 0 first.
        """
        height, width = embeddings.shape[-2], embeddings.shape[-1]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (1 + 4, dim)
        output_tokens = output_tokens.unsqueeze(0).expand(prompt_tokens.shape[0], -1, -1)
        tokens = torch.cat([output_tokens, prompt_tokens], dim=1)  # (B, 5 + N, dim)
        ignored = F.pad(ignored, [output_tokens.shape[1], 0])
        bias = torch.zeros_like(ignored, dtype=tokens.dtype).masked_fill(ignored, float("-inf"))
        image = embeddings.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, dense_pe, tokens, bias.unsqueeze(1).unsqueeze(1))

        upscaled = self.output_upscaling(image.transpose(1, 2).unflatten(2, (height, width)))  # (B, dim/8, 4T, 4T)
        kernels = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)  # (B, 4, dim/8) @ (B, dim/8, 16*T*T)
        return masks.unflatten(2, (4 * height, 4 * width)), self.iou_prediction_head(tokens[:, 0])
