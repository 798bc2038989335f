# SPDX-License-Identifier: Apache-2.0
"""SAM with ViT-B (Kirillov et al., "Segment Anything", 2023), which MedSAM (Ma et al., 2024) shares.

Written from the paper and the public structure of facebookresearch/segment-anything (Apache-2.0), whose checkpoints
load as they are. timm's and Hugging Face's encoders have the same weights under other names, cannot be scripted with
adapters in them, and come with packages that nothing else here needs.
"""

from .sam import SAM

__all__ = ["SAM"]
