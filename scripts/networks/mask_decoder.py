# SPDX-License-Identifier: Apache-2.0
"""The mask decoder of EfficientSAM (Xiong et al., 2023; yformer/EfficientSAM)."""

import torch
import torch.nn as nn
from torch import Tensor

from .two_way_transformer import MLP, TwoWayTransformer

NUM_MASKS = 4  # mask 0 for an unambiguous prompt, masks 1 to 3 for an ambiguous one (SAM, section 3)


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
        self.final_output_upscaling_layers = nn.ModuleList(
            [
                nn.Sequential(nn.ConvTranspose2d(dim, dim // 4, 2, 2), nn.GroupNorm(1, dim // 4), nn.GELU()),
                nn.Sequential(nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2), nn.Identity(), nn.GELU()),
            ]
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, depth=2) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP(dim, iou_hidden_dim, NUM_MASKS, depth=2)

    def forward(self, embeddings: Tensor, dense_pe: Tensor, prompt_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Decode all four masks.

        Args:
            embeddings: (B, dim, T, T), one for each prompt.
            dense_pe: (1, T*T, dim).
            prompt_tokens: (B, N, dim).

        Returns:
            Logits (B, 4, 4T, 4T) and predicted IoU (B, 4), mask 0 first.
        """
        height, width = embeddings.shape[-2], embeddings.shape[-1]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (1 + 4, dim)
        output_tokens = output_tokens.unsqueeze(0).expand(prompt_tokens.shape[0], -1, -1)
        tokens = torch.cat([output_tokens, prompt_tokens], dim=1)  # (B, 5 + N, dim)
        tokens, image = self.transformer(embeddings.flatten(2).transpose(1, 2), dense_pe, tokens)

        upscaled = image.transpose(1, 2).unflatten(2, (height, width))  # (B, T*T, dim) -> (B, dim, T, T)
        for layer in self.final_output_upscaling_layers:
            upscaled = layer(upscaled)  # (B, dim/4, 2T, 2T), then (B, dim/8, 4T, 4T)
        kernels = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)  # (B, 4, dim/8) @ (B, dim/8, 16*T*T)
        return masks.unflatten(2, (4 * height, 4 * width)), self.iou_prediction_head(tokens[:, 0])
