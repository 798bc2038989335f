# SPDX-License-Identifier: Apache-2.0
"""Several adapters on one base that is loaded once."""

from pathlib import Path
from typing import Any

from .adapters import load_adapter
from .checkpoint import build_network, check_adapter, check_same_model, choose_settings
from .checkpoint_file import read_checkpoint
from .efficient_sam import EfficientSAM


def put_adapter(base: EfficientSAM, path: str | Path, **asked: Any) -> EfficientSAM:
    """Return a network with what a file trained, on the tensors of a base that is loaded already.

    The two are networks of their own, so that both may answer at once, and share all tensors that were not trained.

    Args:
        base: as its file is; stays as it is.
        path: of the adapter.
        asked: settings that a user asks for; nothing takes the file's.

    Raises:
        InputError: when the file cannot be loaded, or was trained on other weights.
    """
    checkpoint = read_checkpoint(Path(path))
    check_adapter(checkpoint, path)
    network = build_network(choose_settings(checkpoint, path, asked)).train(base.training)
    below = base.state_dict()
    check_same_model(network.state_dict(), path, below, "the base")
    shared = {
        name: below[name] if name in below and name not in checkpoint.state else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(shared, assign=True)
    return load_adapter(network, checkpoint.state, checkpoint.whole["base"], path)
