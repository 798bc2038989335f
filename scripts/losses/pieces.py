# SPDX-License-Identifier: Apache-2.0
"""A loss that needs the memory of a piece of its batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sum_in_pieces(
    function: Callable[..., Tensor], learned: Sequence[Tensor], given: Sequence[Tensor], length: int
) -> Tensor:
    """Return the sum of a function over pieces of its arguments, and find the gradients of each piece at once.

    The backward pass then has nothing to do, and what the function computed on its way is in memory for one piece at a
    time. (Liger Kernel, Hsu et al., arXiv:2410.10989, section 3.2, does this with the loss of language models.)

    Args:
        function: of a piece of each of ``learned`` in single precision, and of each of ``given``; gives a scalar, and
            has no parameters of its own.
        learned: tensors (N, ...) that take gradients.
        given: tensors (N, ...) that take none.
        length: of a piece.

    Returns:
        A scalar in single precision.
    """
    wanted = torch.is_grad_enabled() and any(each.requires_grad for each in learned)
    return _SumInPieces.apply(function, given, length, wanted, *learned)


class _SumInPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], given: Sequence[Tensor], length: int, wanted: bool, *learned: Tensor
    ) -> Tensor:
        # single precision: in half, gradients vanish that GradScaler has not scaled yet
        gradients = [torch.empty_like(each, dtype=torch.float32) for each in learned] if wanted else []
        total = learned[0].new_zeros((), dtype=torch.float32)
        for start in range(0, len(learned[0]), length):
            piece = slice(start, start + length)
            leaves = [each[piece].detach().float().requires_grad_(wanted) for each in learned]
            with torch.set_grad_enabled(wanted):
                value = function(*leaves, *(each[piece] for each in given))
            if wanted:
                for gradient, found in zip(gradients, torch.autograd.grad(value, leaves)):
                    gradient[piece] = found
            total += value.detach()
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [each.dtype for each in learned]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple:
        scaled = ((above * each).to(dtype) for each, dtype in zip(ctx.saved_tensors, ctx.dtypes))
        return (None, None, None, None, *scaled)
