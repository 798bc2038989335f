# SPDX-License-Identifier: Apache-2.0
"""EfficientSAM (Xiong et al., "EfficientSAM: Leveraged Masked Image Pretraining for Efficient Segment Anything", 2023).

Parameter names are those of yformer/EfficientSAM (Apache-2.0), so its checkpoints load as they are.
"""

import torch.nn as nn

from ..errors import InputError
from .image_encoder import ImageEncoder, check_image_size
from .mask_decoder import MaskDecoder
from .prompt_encoder import NUM_SLOTS, PromptEncoder
from .segmenter import Segmenter, init_linear

BACKBONES = {"vitt": {"dim": 192, "num_heads": 3}, "vits": {"dim": 384, "num_heads": 6}}


class EfficientSAM(Segmenter):
    """Segment what points and boxes ask for.

    Args:
        backbone: ``"vitt"`` (10 M parameters) or ``"vits"`` (26 M).
        image_size: side S in pixels of the network's own square grid, a multiple of 16; 1024 is upstream's. Images of
            any size go in: they are resized to it (aspect not kept, as upstream), and masks come back on the image's
            grid.
        align_points: put prompts on images smaller than the network's where they were placed; upstream's scaling, which
            parity needs, moves them by up to half a pixel.

    Raises:
        InputError: when the backbone is unknown or the size is not a positive multiple of 16.
    """

    def __init__(self, backbone: str = "vitt", image_size: int = 1024, align_points: bool = False) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"backbone is one of {', '.join(BACKBONES)}, got {backbone!r}")
        check_image_size(image_size)
        self.backbone = backbone
        self.image_size = image_size
        self.mask_size = image_size // 4
        self.num_slots = NUM_SLOTS
        self.image_encoder = ImageEncoder(self.image_size, depth=12, **BACKBONES[backbone])
        self.prompt_encoder = PromptEncoder(self.image_size, self.image_encoder.grid, align_points=align_points)
        self.mask_decoder = MaskDecoder()
        self.apply(init_linear)
        nn.init.trunc_normal_(self.image_encoder.pos_embed, std=0.02)

    def extra_repr(self) -> str:
        return f"{self.backbone}, image_size={self.image_size}, align_points={self.prompt_encoder.align_points}"
