# SPDX-License-Identifier: Apache-2.0
"""What inferers and engines know of a network, and nothing more."""

from typing import Protocol

from torch import Tensor


class Promptable(Protocol):
    """A network that encodes an image once and decodes each prompt; see :class:`scripts.networks.EfficientSAM`."""

    image_size: int  # side of its own image in pixels
    mask_size: int  # side of its low-resolution masks in cells

    def encode_image(self, image: Tensor) -> Tensor:
        """Encode (B, 3, H, W) images."""
        ...

    def decode_all(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode all four masks of each object."""
        ...

    def decode_best(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
        mask_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode one mask of each object."""
        ...

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits to (H, W)."""
        ...
