# SPDX-License-Identifier: Apache-2.0
"""The halves of a network as modules with plain tensors in and out, which exporters can follow."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.promptable import Exportable, select_mask

FRAME = 1024  # of segment-anything: the longer side of its images, in whose pixels its prompts are
SAM_MASK = 256  # side of its low-resolution masks


class Encoder(nn.Module):
    """Encode images: (B, 3, H, W), RGB in 0..1, to (B, ...)."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.encode_image(image)


class Decoder(nn.Module):
    """Decode all masks of each object: :meth:`scripts.networks.promptable.Exportable.decode_traced` as a module."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: Tensor,
        mask_prompt: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of each object.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
            size: (2) integers, height and width of the image.
            mask_prompt: (B, Q, 1, M, M) logits of the round before, or nothing.
            has_mask: (1): 1 where ``mask_prompt`` counts, else 0.
        """
        return self.network.decode_traced(embeddings, points, point_labels, size, mask_prompt, has_mask)


class FullModel(nn.Module):
    """All of the network as one: images, points and their labels to logits on the image's grid."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network, self.decoder = network, Decoder(network)

    def forward(self, image: Tensor, points: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Segment: (B, 3, H, W), (B, Q, N, 2), (B, Q, N) int64 to the best masks (B, Q, H, W) and their IoU (B, Q).

        Args:
            image: (B, 3, H, W), RGB in 0..1.
            points: (B, Q, N, 2), (x, y) in pixels of ``image``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
        """
        height, width = image.shape[2:]
        size = torch.stack([torch.scalar_tensor(height), torch.scalar_tensor(width)])
        nothing = torch.zeros(*points.shape[:2], 1, self.network.mask_size, self.network.mask_size)
        logits, iou = self.decoder(
            self.network.encode_image(image), points, point_labels, size, nothing, torch.zeros(1)
        )
        low, quality = select_mask(logits, iou)
        return self.network.upscale(low.squeeze(2), (height, width)), quality


class SamEncoder(nn.Module):
    """Encode one image as segment-anything's exported encoders do: in its shape; the network stretches it.

    Args:
        network: that encodes.
        height_first: take (H, W, 3) in 0..255, as samexporter's files and AnyLabeling do, for (1, 3, H, W) in 0..1.
    """

    def __init__(self, network: Exportable, height_first: bool = False) -> None:
        super().__init__()
        self.network = network
        self.height_first = height_first

    def forward(self, image: Tensor) -> Tensor:
        if self.height_first:
            image = image.permute(2, 0, 1).unsqueeze(0) / 255
        return self.network.encode_image(image)


class SamDecoder(nn.Module):
    """Decode one object with the signature of segment-anything's exported decoders (Kirillov et al., 2023)."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network, self.decoder = network, Decoder(network)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the best mask.

        Args:
            image_embeddings: (1, ...).
            point_coords: (1, N, 2), (x, y) in pixels of the image whose longer side is 1024.
            point_labels: (1, N) float32: -1 padding, 0 background, 1 foreground, 2 and 3 a box's corners.
            mask_input: (1, 1, 256, 256) logits of the round before.
            has_mask_input: (1) float32.
            orig_im_size: (2) float32, height and width of the original image.

        Returns:
            ``masks`` (1, 1, H, W) logits, ``iou_predictions`` (1, 1), ``low_res_masks`` (1, 1, 256, 256).
        """
        shown = F.interpolate(mask_input, [self.network.mask_size] * 2, mode="bilinear", align_corners=False)
        points = point_coords * (orig_im_size.max() / FRAME)  # in pixels of the original, as the network has them
        points = torch.where(point_coords >= 0, points, torch.full_like(points, -1.0))
        labels = point_labels.to(torch.int64).unsqueeze(1)
        logits, iou = self.decoder(
            image_embeddings, points.unsqueeze(1), labels, orig_im_size, shown.unsqueeze(1), has_mask_input
        )
        low, quality = select_mask(logits, iou)  # (1, 1, 1, M, M), (1, 1)
        low = low.squeeze(2)
        masks = self.network.upscale_traced(low, orig_im_size)
        low = F.interpolate(low, [SAM_MASK, SAM_MASK], mode="bilinear", align_corners=False)
        return masks, quality, low
