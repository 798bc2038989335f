# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on, in a third of the bytes: weights in half precision, an optimizer's moments in 8 bits.

Moments are cut into blocks with a scale of their own, as in "8-bit Optimizers via Block-wise Quantization" (Dettmers et
al., 2022). First moments are linear in a block, second ones logarithmic: none becomes zero, by which a step is divided.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 128
SMALL = 4096  # elements below which a tensor stays as it is
TINY = 1e-30  # of a second moment
# steps of 8 bits, by the moments of torch's Adams; an even number of them has one for zero
LEVELS = {"exp_avg": 254, "exp_avg_sq": 255}
LOGARITHMIC = "exp_avg_sq"  # which is never negative


class Compact:
    """Save the state of a network or of an optimizer in fewer bytes.

    Args:
        of: a network, whose weights become float16, or one of torch's Adams, whose moments become 8 bits.
    """

    def __init__(self, of: Any) -> None:
        self.of = of

    def state_dict(self) -> dict[str, Any]:
        """Return the state in fewer bytes."""
        return _map(self.of.state_dict(), shrink)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state of either kind."""
        self.of.load_state_dict(_map(state_dict, grow))


def _map(state: Any, change: Any, name: str = "") -> Any:
    """Change the tensors of a state, which is told their names."""
    if isinstance(state, Tensor) or _is_packed(state):
        return change(state, name)
    if isinstance(state, Mapping):
        return {key: _map(value, change, str(key)) for key, value in state.items()}
    return [_map(value, change) for value in state] if isinstance(state, list) else state


def _is_packed(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"bits", "low", "high", "shape"}


def shrink(tensor: Tensor, name: str) -> Any:
    """Return a tensor in fewer bytes: moments as blocks of 8 bits, others in half precision.

    Args:
        tensor: of a state.
        name: of it.
    """
    if not tensor.is_floating_point() or tensor.numel() < SMALL:
        return tensor
    if name not in LEVELS:
        return tensor.half()
    flat = tensor.detach().float().flatten()
    values = F.pad(flat, [0, -len(flat) % BLOCK], value=float(flat[-1])).reshape(-1, BLOCK)
    if name == LOGARITHMIC:
        values = values.clamp(min=TINY).log()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    if name != LOGARITHMIC:
        high = torch.maximum(high.abs(), low.abs())
        low = -high  # so that zero stays zero
    bits = ((values - low) / (high - low).clamp(min=1e-38) * LEVELS[name]).round().to(torch.uint8)
    return {"bits": bits, "low": low, "high": high, "shape": list(tensor.shape)}


def grow(value: Any, name: str) -> Tensor:
    """Return a tensor as it was, within what was rounded off.

    Args:
        value: of :func:`shrink`.
        name: of it.
    """
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.float16 else value
    values = value["low"] + value["bits"].float() / LEVELS[name] * (value["high"] - value["low"])
    count = int(torch.Size(value["shape"]).numel())
    return (values.exp() if name == LOGARITHMIC else values).flatten()[:count].reshape(value["shape"])
