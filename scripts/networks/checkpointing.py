# SPDX-License-Identifier: Apache-2.0
"""Less memory in training, for more time."""

from fnmatch import fnmatchcase
from functools import partial

from torch.utils.checkpoint import checkpoint

from .efficient_sam import EfficientSAM

CHECKPOINTED = (  # what is computed again: together, nearly everything that is as large as an image
    "image_encoder.blocks.?*",
    "mask_decoder.transformer.layers.?*",
    "mask_decoder.final_output_upscaling_layers.?*",
    "mask_decoder.output_upscaling",  # as SAM has it
)


def checkpoint_activations(network: EfficientSAM, enabled: bool = True) -> EfficientSAM:
    """Keep the inputs alone of encoder and decoder blocks, and compute the rest again in the backward pass.

    As in "Training Deep Nets with Sublinear Memory Cost" (Chen et al., 2016), by torch's own means. Parameters keep
    their names, and without gradients nothing changes.

    Args:
        network: changed in place.
        enabled: whether to do it at all.

    Returns:
        The same network.
    """
    for name, module in network.named_modules() if enabled else ():
        depths = (name.count(".") == pattern.count(".") and fnmatchcase(name, pattern) for pattern in CHECKPOINTED)
        if any(depths):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    return network
