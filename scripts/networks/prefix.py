# SPDX-License-Identifier: Apache-2.0
"""The part of the image encoder that training leaves as it is, which need not run anew for an image it has seen."""

import torch
from torch import Tensor

from ..errors import InputError
from .adapters.files import digest
from .segmenter import Segmenter


class FrozenPrefix:
    """Run the image encoder up to its first trained module, and from there on.

    Args:
        network: whose parameters take gradients where they are trained.

    Raises:
        InputError: when no block of the image encoder is frozen.
    """

    def __init__(self, network: Segmenter) -> None:
        self.network = network
        encoder = network.image_encoder
        stages = [*encoder.blocks, encoder.neck]
        below = [encoder.pos_embed, *encoder.patch_embed.parameters()]
        self.depth = next((i for i, stage in enumerate(stages) if _is_trained(stage.parameters())), len(stages))
        if _is_trained(below) or self.depth == 0:
            raise InputError(
                "cached_views keeps what the frozen blocks of the image encoder give, and the first block is trained: "
                "leave it out, or train less, such as last_blocks of the adapters or configs/finetune/decoder.yaml"
            )

    def start(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) up to the first trained module, without gradients."""
        encoder = self.network.image_encoder
        with torch.no_grad():
            x = encoder.embed(self.network.preprocess(image))
            for block in encoder.blocks[: self.depth]:
                x = block(x)
            return encoder.project(x) if self.depth > len(encoder.blocks) else x

    def finish(self, features: Tensor) -> Tensor:
        """Encode from there on: embeddings (B, 256, T, T) of what :meth:`start` returned."""
        encoder = self.network.image_encoder
        if self.depth > len(encoder.blocks):
            return features
        for block in encoder.blocks[self.depth :]:
            features = block(features)
        return encoder.project(features)

    def fingerprint(self) -> str:
        """Return a name that tells the frozen weights and the network's size from all others."""
        own = self.network.image_encoder.named_parameters()
        frozen = digest({name: p.detach().cpu() for name, p in own if not p.requires_grad})
        return f"{type(self.network).__name__} {self.network.image_size} {self.depth} {frozen}"


def _is_trained(parameters: object) -> bool:
    return any(p.requires_grad for p in parameters)  # type: ignore[attr-defined]
