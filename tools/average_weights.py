# SPDX-License-Identifier: Apache-2.0
"""Average what training began from with what came of it: python -m tools.average_weights base.pth trained.pt new.pth

What was known stays, and most of what was learned comes along (WiSE-FT: Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022).
"""

import argparse
from pathlib import Path

import torch

from scripts.errors import InputError
from scripts.io.whole_files import written_whole
from scripts.networks import load


def average(start: str, trained: str, share: float) -> dict[str, torch.Tensor]:
    """Average the tensors of two checkpoints of one network.

    Args:
        start: path of the weights that training began from.
        trained: path of what came of it.
        share: of the trained ones, in 0..1.

    Returns:
        Tensors by name, in half precision.

    Raises:
        InputError: when the share is not in 0..1, or the networks differ.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is from 0 to 1, got {share}")
    one, other = (load(path).state_dict() for path in (start, trained))
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (one, other)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{start} and {trained} are weights of different networks: give two of one")
    return {name: torch.lerp(one[name].float(), other[name].float(), share).half() for name in one}


def main() -> None:
    """Write the mean of two checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start")
    parser.add_argument("trained")
    parser.add_argument("path")
    parser.add_argument("--share", type=float, default=0.5)
    given = parser.parse_args()
    try:
        tensors = average(given.start, given.trained, given.share)
    except InputError as error:
        parser.exit(1, f"error: {error}\n")
    with written_whole(Path(given.path)) as unfinished:
        torch.save({"model": tensors}, unfinished)


if __name__ == "__main__":
    main()
