# SPDX-License-Identifier: Apache-2.0
"""SAM (Kirillov et al., 2023) as one network, in its own geometry or in that of MedSAM (Ma et al., 2024)."""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ..image_encoder import check_image_size
from ..segmenter import Segmenter, init_linear
from .image_encoder import ImageEncoder
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder

BACKBONES: dict[str, Any] = {"vitb": {"dim": 768, "depth": 12, "num_heads": 12, "global_blocks": (2, 5, 8, 11)}}


class SAM(Segmenter):
    """Segment what points, boxes and masks ask for.

    Args:
        backbone: ``"vitb"`` (94 M parameters).
        image_size: side S in pixels of the network's own square grid, a multiple of 16; 1024 is upstream's.
        align_points: put prompts on images smaller than the network's where they were placed; upstream's scaling, which
            parity needs, moves them by up to half a pixel.
        is_padded: let the longer side of an image fill the square, and pad the other, as upstream does; else both are
            stretched to it, as Medical-SAM-Adapter and MedSAM do.
        is_rescaled: let the least and the largest value of an image be 0 and 1, as MedSAM does; else colours are
            normalised by the mean and deviation of ImageNet.

    Raises:
        InputError: when the backbone is unknown or the size is not a positive multiple of 16.
    """

    def __init__(
        self,
        backbone: str = "vitb",
        image_size: int = 1024,
        align_points: bool = False,
        is_padded: bool = True,
        is_rescaled: bool = False,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"backbone is one of {', '.join(BACKBONES)}, got {backbone!r}")
        check_image_size(image_size)
        self.backbone = backbone
        self.image_size = image_size
        self.mask_size = image_size // 4
        self.num_slots = 1
        self.is_padded, self.is_rescaled = is_padded, is_rescaled
        self.outside = -1.0  # of a padded image: values inside are 0..1
        self.image_encoder = ImageEncoder(image_size, **BACKBONES[backbone])
        self.prompt_encoder = PromptEncoder(image_size, self.image_encoder.grid, align_points=align_points)
        self.mask_decoder = MaskDecoder()
        self.apply(init_linear)
        nn.init.trunc_normal_(self.image_encoder.pos_embed, std=0.02)

    def extra_repr(self) -> str:
        geometry = f"is_padded={self.is_padded}, is_rescaled={self.is_rescaled}"
        return f"{self.backbone}, image_size={self.image_size}, {geometry}, {self.prompt_encoder.align_points}"

    def preprocess(self, image: Tensor) -> Tensor:
        """Bring (B, 3, H, W) in 0..1 to (B, 3, S, S), normalised; padding is 0."""
        image = self.resize(image)
        if self.is_rescaled:
            low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
            return (image - low) / (high - low).clamp(min=1e-8)
        normalised = (image - self.pixel_mean) / self.pixel_std
        return (
            torch.where(image == self.outside, torch.zeros_like(normalised), normalised)
            if self.is_padded
            else normalised
        )

    def predict_masks(self, embeddings: Tensor, tokens: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the masks of each prompt.

        Args:
            embeddings: (B, 256, T, T), with the dense embedding of the prompt.
            tokens: (B, N + 1, 256) of the prompt.
            point_labels: (B, N) integers.
        """
        ignored = self.prompt_encoder.ignored(point_labels)
        return self.mask_decoder(embeddings, self.prompt_encoder.dense_pe(), tokens, ignored)

    def filled(self, size: tuple[int, int], side: int) -> tuple[int, int]:
        """Return the height and width that an image of ``size`` has in a padded square.

        Args:
            size: (H, W) of the image.
            side: of the square.
        """
        longest = max(size[0], size[1])
        height, width = ((2 * n * side + longest) // (2 * longest) for n in (size[0], size[1]))
        return max(height, 1), max(width, 1)

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (H, W) that an image of ``size`` has with its padding."""
        longest = max(size[0], size[1])
        return (longest, longest) if self.is_padded else size

    def frame_traced(self, size: Tensor) -> Tensor:
        """Return :meth:`frame` of a size that is a tensor (2)."""
        return size.max().expand(2) if self.is_padded else size

    def resize(self, image: Tensor) -> Tensor:
        """Bring (B, C, H, W) to (B, C, S, S); what is outside of the image is -1."""
        side = self.image_size
        if not self.is_padded:
            return F.interpolate(image, [side, side], mode="bilinear", align_corners=False)
        if image.shape[-2] == side and image.shape[-1] == side:
            return image
        height, width = self.filled((image.shape[-2], image.shape[-1]), side)
        image = F.interpolate(image, [height, width], mode="bilinear", align_corners=False)
        return F.pad(image, [0, side - width, 0, side - height], value=self.outside)

    def shrink(self, masks: Tensor) -> Tensor:
        """Bring masks (B, 1, H, W) in 0..1 to (B, 1, M, M), the share of each cell."""
        side = self.mask_size
        if not self.is_padded:
            return F.interpolate(masks, [side, side], mode="area")
        height, width = self.filled((masks.shape[-2], masks.shape[-1]), side)
        return F.pad(F.interpolate(masks, [height, width], mode="area"), [0, side - width, 0, side - height])

    @torch.jit.export
    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits (..., M, M) to (..., H, W) by bilinear interpolation, as upstream.

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (H, W) of the image.
        """
        flat = logits.reshape(-1, 1, logits.shape[-2], logits.shape[-1])
        if self.is_padded:
            flat = F.interpolate(flat, [self.image_size, self.image_size], mode="bilinear", align_corners=False)
            height, width = self.filled(size, self.image_size)
            flat = flat[..., :height, :width]
        flat = F.interpolate(flat, [size[0], size[1]], mode="bilinear", align_corners=False)
        return flat.reshape(logits.shape[:-2] + flat.shape[-2:])

    def upscale_traced(self, logits: Tensor, size: Tensor) -> Tensor:
        """Bring logits (B, C, M, M) to an image whose size is a tensor (2), bilinearly, as (B, C, H, W).

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (2) integers, height and width.
        """
        if not self.is_padded:
            return super().upscale_traced(logits, size)
        side = self.image_size
        whole = F.interpolate(logits, [side, side], mode="bilinear", align_corners=False)
        longest = size.max()
        filled = ((2 * size * side + longest) / (2 * longest)).floor()  # as :meth:`filled`
        places = []
        for count, share in zip(size.to(torch.int64).unbind(), filled.unbind()):
            length = int(count)
            torch._check(length >= 1)
            # the last pixel of the image is its border, and what is padded lies beyond
            middles = ((torch.arange(length) + 0.5) * (share / length)).minimum(share - 0.5)
            places.append(2 * middles / side - 1)
        rows, columns = places
        grid = torch.stack(
            [columns.expand(len(rows), -1), rows.unsqueeze(1).expand(-1, len(columns))], dim=-1
        ).unsqueeze(0)
        return F.grid_sample(whole, grid, mode="bilinear", padding_mode="border", align_corners=False)
