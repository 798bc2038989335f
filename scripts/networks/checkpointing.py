# SPDX-License-Identifier: Apache-2.0
"""Less memory in training, for more time."""

from functools import partial

from torch.utils.checkpoint import checkpoint

from .efficient_sam import EfficientSAM


def checkpoint_activations(network: EfficientSAM, enabled: bool = True) -> EfficientSAM:
    """Keep of each block of the image encoder its input alone, and compute the rest again in the backward pass.

    As in "Training Deep Nets with Sublinear Memory Cost" (Chen et al., 2016), by torch's own means. Parameters keep
    their names, and without gradients nothing changes.

    Args:
        network: changed in place.
        enabled: whether to do it at all.

    Returns:
        The same network.
    """
    if enabled:
        for block in network.image_encoder.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return network
