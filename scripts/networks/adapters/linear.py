# SPDX-License-Identifier: Apache-2.0
"""What LoRA and AdaLoRA share: a linear layer that adds to the weight of another, and merges into a plain one."""

from torch import Tensor, nn

MSA_LAYERS = ["image_encoder.*.qkv", "image_encoder.*.mlp.*"]  # what Medical-SAM-Adapter adapts by both


class AdaptedLinear(nn.Linear):
    """A linear layer that takes over the parameters of another and adds to what it computes.

    Args:
        linear: the layer, whose parameters it takes over.
        scale: factor on what is added.
    """

    def __init__(self, linear: nn.Linear, scale: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.enabled = True
        self.scale = scale

    def added_weight(self) -> Tensor:
        """Return what is added to the weight (out_features, in_features)."""
        raise NotImplementedError

    def merge(self) -> nn.Linear:
        """Return a plain layer that does the same."""
        merged = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        weight = (self.weight + self.added_weight()).detach()
        merged.weight, merged.bias = nn.Parameter(weight, requires_grad=False), self.bias
        return merged
