# SPDX-License-Identifier: Apache-2.0
"""A second network, of another geometry: it pads where EfficientSAM stretches, and has eight slots for points."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.networks.promptable import DecodesBest

SIDE, CELLS = 128, 64  # of its image in pixels, of its masks


class PaddedNetwork(DecodesBest, nn.Module):
    """Segment what is as bright as the clicks, or what is in the box; a background click takes what is near it away."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.mask_size, self.num_slots = SIDE, CELLS, 8
        self.contrast = nn.Parameter(torch.tensor(50.0))
        self.feedback = nn.Parameter(torch.tensor(0.01))

    def forward(self, image, points, point_labels):
        size = (image.shape[2], image.shape[3])
        logits, _ = self.decode_best(self.encode_image(image), points, point_labels, size)
        return self.upscale(logits.squeeze(2), size)

    def extra_repr(self) -> str:
        return "padded"

    def encode_image(self, image: Tensor) -> Tensor:
        return F.interpolate(self.resize(image), [CELLS, CELLS], mode="area").mean(1, keepdim=True)

    def resize(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        longest = max(height, width)
        image = F.pad(image, [0, longest - width, 0, longest - height])
        return F.interpolate(image, [SIDE, SIDE], mode="bilinear", align_corners=False)

    def to_network(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        scaled = (points + 0.5) * (SIDE / max(size)) - 0.5
        return torch.where((point_labels == -1).unsqueeze(-1), torch.full_like(scaled, -1.0), scaled)

    def shrink(self, masks: Tensor) -> Tensor:
        height, width = masks.shape[-2:]
        longest = max(height, width)
        return F.interpolate(F.pad(masks, [0, longest - width, 0, longest - height]), [CELLS, CELLS], mode="area")

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        longest = max(size)
        flat = logits.reshape(-1, 1, CELLS, CELLS)
        flat = F.interpolate(flat, [longest, longest], mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
        return flat.reshape(logits.shape[:-2] + flat.shape[-2:])

    def decode_all(self, embeddings, points, point_labels, size, mask_prompt=None):
        return self.look(embeddings, self.to_network(points, point_labels, size), point_labels, mask_prompt)

    def decode_traced(self, embeddings, points, point_labels, size, mask_prompt, has_mask):
        points = (points + 0.5) * (SIDE / size.max()) - 0.5
        return self.look(embeddings, points, point_labels, has_mask * mask_prompt)

    def upscale_traced(self, logits: Tensor, size: Tensor) -> Tensor:
        height, width = (int(n) for n in size.to(torch.int64).unbind())
        for side in (height, width):
            torch._check(side >= 1)
        rows, columns = (2 * (torch.arange(n) + 0.5) / size.max() - 1 for n in (height, width))
        grid = torch.stack([columns.expand(height, -1), rows.unsqueeze(1).expand(-1, width)], dim=-1).unsqueeze(0)
        return F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def look(self, grey: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Decode from points (B, Q, N, 2) in pixels of its own image."""
        grid = 2 * (points + 0.5) / SIDE - 1
        under = F.grid_sample(grey, grid, mode="nearest", align_corners=False)[:, 0]  # (B, Q, N)
        is_click = (labels == 1).to(grey)
        bright = (under * is_click).sum(2) / is_click.sum(2).clamp(min=1)
        logits = 10 - self.contrast * (grey - bright[:, :, None, None]).abs()  # (B, Q, M, M)
        centres = (torch.arange(CELLS) + 0.5) * (SIDE / CELLS) - 0.5
        x, y = (points[..., axis, None] for axis in (0, 1))
        near = ((centres - x).abs() < 16).unsqueeze(3) & ((centres - y).abs() < 16).unsqueeze(4)  # (B, Q, N, x, y)
        wrong = (near & (labels == 0)[..., None, None]).any(2).transpose(2, 3)
        logits = torch.where(wrong, torch.full_like(logits, -10.0), logits)
        first, last = ((points * (labels == label).to(points)[..., None]).sum(2) for label in (2, 3))
        inside = [(centres >= first[..., a, None]) & (centres <= last[..., a, None]) for a in (0, 1)]
        box = (inside[1].unsqueeze(3) & inside[0].unsqueeze(2)).to(logits)
        logits = torch.where((labels == 2).any(2)[..., None, None], 20 * box - 10, logits)
        if mask is not None:
            logits = logits + self.feedback * mask[:, :, 0]
        iou = torch.tensor([0.5, 0.1, 0.9, 0.2]).expand(*labels.shape[:2], 4) + 0 * self.contrast
        return torch.stack([logits - 30, -logits, logits, logits + 30], dim=2), iou
